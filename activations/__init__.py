"""Plan and deliver audiences from the warehouse to email, SMS and ad platforms."""

import os

# DuckDB, polars and Arrow have an allocator each, and each keeps for itself what was freed. Before they are loaded, polars
# is told to give it back and Arrow to share the system's: 80 MB less at the peak of a million rows, and no slower.
os.environ.setdefault("_RJEM_MALLOC_CONF", "narenas:1,dirty_decay_ms:100,muzzy_decay_ms:0")
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

"""Which fields of a changed row differ, from sixteen bits a field: enough to show, never enough to decide."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from activations.config import Sync

MAPPING = "mapping"


def marked_columns(sync: Sync) -> tuple[str, ...]:
    """The plan's columns that a payload is made of: identifiers beside the destination's key, and the fields."""
    beside = [f"i.{name}" for name, column in sync.identifiers.items() if column not in sync.key_columns]
    return (*beside, *(f"f.{name}" for name in sync.fields))


def mapping_mark(sync: Sync, hashing: str) -> int:
    """The first mark: which fields the others speak of, and how the warehouse made them."""
    content = "\x1f".join((hashing, *marked_columns(sync)))
    return int.from_bytes(hashlib.sha256(content.encode()).digest()[:2])


def changed_fields(sync: Sync, old: Sequence[int] | None, new: Sequence[int] | None) -> tuple[str, ...]:
    """The destination's names of what differs; `mapping` when the fields themselves do; empty when nobody can tell."""
    if old is None or new is None:
        return ()
    if old[0] != new[0]:
        return (MAPPING,)
    pairs = zip(marked_columns(sync), old[1:], new[1:], strict=True)
    return tuple(name[2:] for name, before, after in pairs if before != after)

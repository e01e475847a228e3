"""One module per vendor, each of which only speaks its API."""

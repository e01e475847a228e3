"""Personal data as a page may show it: enough to recognise a shape, not a person."""

from __future__ import annotations


def mask_email(email: str) -> str:
    """`jane.roe@example.com` → `j***@e***.com`."""
    local, _, domain = email.partition("@")
    name, _, ending = domain.rpartition(".")
    return f"{local[:1]}***@{name[:1]}***.{ending}" if local and name else "***"


def mask_phone(phone: str) -> str:
    """`+12125550123` → `+1 ••• ••• ••23`."""
    return f"{phone[:2]} ••• ••• ••{phone[-2:]}" if len(phone) > 6 else "•••"


def mask_digest(digest: str) -> str:
    """The first eight characters."""
    return digest[:8] + "…" if len(digest) > 8 else digest

"""Personal data as a page may show it: enough to recognise a shape, not a person."""

from __future__ import annotations

import re

_COUNTRY = re.compile(r"\+([17]|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|\d{3})")
"""The country code of a number (ITU-T E.164)."""


def mask_email(email: str) -> str:
    """`jane.roe@example.com` → `j***@e***.com`."""
    local, _, domain = email.partition("@")
    name, _, ending = domain.rpartition(".")
    return f"{local[:1]}***@{name[:1]}***.{ending}" if local and name else "***"


def mask_phone(phone: str) -> str:
    """`+12125550123` → `+1 ••• ••• ••23`, `+436605550123` → `+43 ••• ••• ••23`."""
    country = _COUNTRY.match(phone)
    return f"{country[0]} ••• ••• ••{phone[-2:]}" if country and len(phone) > 6 else "•••"


def mask_digest(digest: str) -> str:
    """The first eight characters."""
    return digest[:8] + "…" if len(digest) > 8 else digest

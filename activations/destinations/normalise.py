"""Each platform's own idea of the same address.

Nothing here is shared between platforms on purpose: Meta wants a telephone number without `+`, Klaviyo and Twilio
with it, and one hashed column for all of them silently matches nobody. "" means: unknown, never hash it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

_SHA256 = re.compile(r"[0-9a-f]{64}")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")


def sha256(normal_form: str) -> str:
    """Lower-case hexadecimal digest. An empty value stays empty and a digest is not hashed a second time."""
    if not normal_form or _SHA256.fullmatch(normal_form):
        return normal_form
    return hashlib.sha256(normal_form.encode("utf-8")).hexdigest()


def e164(value: str) -> str:
    """`+` and digits as Klaviyo and Twilio want it, or "" when it cannot be a telephone number."""
    number = "+" + _digits(value) if value.strip().startswith("+") else ""
    return number if _E164.fullmatch(number) else ""


def meta_email(value: str) -> str:
    """Dots and `+tag` stay: for Meta they are part of the address."""
    return value.strip().lower()


def meta_phone(value: str) -> str:
    """Digits with country code, no `+`, no leading zeros. `+0000000000` is nothing: one such value fails a batch."""
    return _digits(value).lstrip("0")


def meta_name(value: str) -> str:
    """Lower case without punctuation, letters of every script kept (Meta's own SDK drops them: `valry`)."""
    return "".join(c for c in value.lower() if unicodedata.category(c)[0] != "P").strip()


def meta_place(value: str) -> str:
    """City, state and country: lower case, letters and digits of every script only."""
    return "".join(c for c in value.lower() if c.isalnum() or unicodedata.category(c)[0] == "M")


def meta_zip(value: str) -> str:
    """Lower case without spaces; of a United States ZIP+4 only the first five digits."""
    code = re.sub(r"\s+", "", value).lower()
    return code[:5] if re.fullmatch(r"\d{5}-?\d{4}", code) else code.replace("-", "")


META: Mapping[str, Callable[[str], str]] = {
    "email": meta_email,
    "phone": meta_phone,
    "fn": meta_name,
    "ln": meta_name,
    "zip": meta_zip,
    "ct": meta_place,
    "st": meta_place,
    "country": meta_place,
}


def json_number(value: Any) -> Any:
    """A field as JSON with numbers as numbers, for vendors that compare them in segments."""
    return float(value) if isinstance(value, Decimal) else json_exact(value)


def json_exact(value: Any) -> Any:
    """A field as JSON that loses nothing: decimals as text, moments in ISO 8601 with their zone (UTC if naive)."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _digits(value: str) -> str:
    """ASCII digits; those of other scripts are translated, because form fields hold them."""
    return "".join(str(unicodedata.digit(c)) for c in value if c.isdigit())

"""Keyed digests: how a person is named where no personal data may stand.

One construction, computed alike in Python and in SQL, so that a suppression recorded by one is found by the other: the
first half of `sha256(key ‖ text)`, in hexadecimal. No warehouse has HMAC, and every one of them has sha256 of a string;
half of it is what nobody can extend to the digest of a longer text. See docs/adr/0004.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlglot.expressions as exp

SEPARATOR = "\x1f"
"""Between the parts of a composed key; rows whose own key holds a control character are refused as invalid."""

_KEY_BYTES = 16
_LENGTH = 32
"""Hexadecimal characters of a digest."""


def derived_key(installation_key: bytes, *use: str) -> bytes:
    """32 bytes for one use, so that what two uses make of one text cannot be joined."""
    return hmac.new(installation_key, SEPARATOR.join(use).encode(), hashlib.sha256).digest()


@dataclass(frozen=True, slots=True)
class Digester:
    """Digests for one use."""

    key: str = field(repr=False)
    """22 characters: with them a text of up to 33 bytes, as most e-mail addresses are, is one block of SHA-256."""

    @classmethod
    def for_use(cls, installation_key: bytes, *use: str) -> Digester:
        """`use` is a word such as `pseudonym`, `message`, `suppression`, and whom or what it is for."""
        return cls(urlsafe_b64encode(derived_key(installation_key, *use)[:_KEY_BYTES]).decode().rstrip("="))

    def __call__(self, *parts: str) -> str:
        """32 hexadecimal characters for these parts in this order."""
        text = self.key + SEPARATOR.join(parts)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]

    def sql(self, text: exp.Expr, sha256: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
        """The same digest of one text expression, computed by the warehouse with its `sha256`."""
        keyed = exp.DPipe(this=exp.Literal.string(self.key), expression=text, safe=True)
        return exp.func("left", sha256(keyed), exp.Literal.number(_LENGTH))


def forms_of_identity(value: str) -> tuple[str, ...]:
    """The forms under which consent and suppression know an identifier, whatever a form field made of it: as it is,
    in lower case as the warehouse would write it, and folded. A match of any two forms is a match."""
    trimmed = value.strip()
    folded = unicodedata.normalize("NFKC", trimmed).casefold()
    return tuple(dict.fromkeys((trimmed, trimmed.lower(), folded)))

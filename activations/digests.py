"""Keyed digests: how a person is named where no personal data may stand.

One construction, computed alike in Python and in SQL, so that a suppression recorded by one is found by the other:
`sha256(key ‖ sha256(key ‖ text))` over hexadecimal text. The nesting keeps a digest from being extended; no
warehouse has HMAC, and every one of them has sha256 of a string.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

import sqlglot.expressions as exp

SEPARATOR = "\x1f"
"""Between the parts of a composed key; rows whose own key holds a control character are refused as invalid."""


@dataclass(frozen=True, slots=True)
class Digester:
    """Digests for one use. Different uses get different keys, so that their digests cannot be joined."""

    key: str = field(repr=False)
    """Hexadecimal, 64 characters."""

    @classmethod
    def for_use(cls, installation_key: bytes, use: str) -> Digester:
        """`use` is a word such as `pseudonym`, `message`, `suppression`, `fingerprint`."""
        return cls(hmac.new(installation_key, use.encode(), hashlib.sha256).hexdigest())

    def __call__(self, *parts: str) -> str:
        """64 hexadecimal characters for these parts in this order."""
        text = SEPARATOR.join(parts)
        return _sha256(self.key + _sha256(self.key + text))

    def sql(self, text: exp.Expr, sha256: Callable[[exp.Expr], exp.Expr]) -> exp.Expr:
        """The same digest of one text expression, computed by the warehouse with its `sha256`."""
        key = exp.Literal.string(self.key)
        inner = sha256(exp.DPipe(this=key, expression=text, safe=True))
        return sha256(exp.DPipe(this=key.copy(), expression=inner, safe=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def forms_of_identity(value: str) -> tuple[str, ...]:
    """The forms under which consent and suppression know an identifier, whatever a form field made of it: as it is,
    in lower case as the warehouse would write it, and folded. A match of any two forms is a match."""
    trimmed = value.strip()
    folded = unicodedata.normalize("NFKC", trimmed).casefold()
    return tuple(dict.fromkeys((trimmed, trimmed.lower(), folded)))

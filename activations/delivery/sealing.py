"""Identifiers of rows in doubt, unreadable without the installation's key.

A destination that gave no key of its own back can only be asked by the identifier itself. While such a row is in
doubt the identifier is kept encrypted in the journal; settling the row deletes it, and deleted bytes are overwritten.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12


class Sealer:
    """AES-256-GCM, bound to the sync the row belongs to."""

    def __init__(self, key: bytes, sync: str) -> None:
        """`key`: 32 bytes."""
        self._cipher, self._context = AESGCM(key), sync.encode()

    def seal(self, identifiers: Mapping[str, str]) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, json.dumps(dict(identifiers)).encode(), self._context)

    def open(self, sealed: bytes | None) -> dict[str, str]:
        """Empty when nothing was sealed."""
        if sealed is None:
            return {}
        plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._context)
        return dict(json.loads(plain))

"""Credentials by reference. A literal in a file is an error, because files end up in git."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from activations.errors import SecretError

KEY_BYTES = 32


def resolve(reference: str, *, file: Path, key: str, root: Path) -> str:
    """What `env:NAME` or `file:path` points at (paths relative to the project's root)."""
    require_reference(reference, file=file, key=key)
    scheme, _, name = reference.partition(":")
    return _from_environment(name, file, key) if scheme == "env" else _from_file(root / name, file, key)


def require_reference(value: object, *, file: Path, key: str) -> None:
    """Refuse a literal credential; what a reference points at is not looked at."""
    if not is_reference(value):
        raise SecretError(
            "must be a reference to a credential, not the credential itself",
            file=file,
            key=key,
            fix="Write `env:NAME` or `file:path`",
        )


def is_reference(value: object) -> bool:
    """Whether the text has the form of a reference."""
    scheme, _, name = value.partition(":") if isinstance(value, str) else ("", "", "")
    return scheme in ("env", "file") and bool(name)


def _from_environment(name: str, file: Path, key: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise SecretError(
            f"the environment variable {name} is not set",
            file=file,
            key=key,
            fix=f"Set {name}"
            + (", or use `environment: sandbox`" if key.startswith("destinations.") else ""),
        )
    return value


def _from_file(path: Path, file: Path, key: str) -> str:
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretError(
            f"the credential file cannot be read ({type(error).__name__})",
            file=file,
            key=key,
            fix="Check the path and its permissions",
        ) from None
    if not value:
        raise SecretError(
            "the credential file is empty", file=file, key=key, fix="Put the credential into it"
        )
    return value


def own_key(path: Path) -> bytes:
    """The installation's own hashing key, made once and readable by its owner only.

    Pseudonyms, message keys and fingerprints depend on it: losing it makes every acknowledged row look changed.
    """
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return _make_key(path)
    except (OSError, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SecretError(
            "the hashing key is damaged",
            file=path,
            fix="Restore it from a backup; a new one re-sends everybody",
        )
    return key


def _make_key(path: Path) -> bytes:
    """Written whole beside its place, then linked: two processes that start at once agree on one key."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(secrets.token_hex(KEY_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return own_key(path)

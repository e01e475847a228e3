"""What can go wrong, and what to do about it.

ActivationsError
├── ConfigError               a file says something that cannot be: fix the file
│   └── SecretError           a credential reference points at nothing
├── WarehouseError            the warehouse cannot be read or written
│   ├── WarehouseLocked       another process holds it: wait or stop that process
│   └── RelationMissing       a table is not there: build dbt, or run `activations init`
├── PlanRejected              a plan cannot be made, or is no longer true
├── PackageMissing            an optional package is not installed: install it
├── MachineError              the machine refuses a file or a folder: free the disk, let the user write
├── SyncBusy                  another engine is working on this sync
├── Fenced                    a newer engine took this sync over: stop at once
└── DeliveryError             raised by a destination while it talks to its API
    ├── BatchRefused          the provider refused the batch without saying which row: split it
    ├── UnreadableResponse    a body that cannot be understood: nobody knows what was accepted
    └── FatalDestinationError nothing more can be sent until a person acts (credentials, permissions, terms)

Every text ends with what to do next, and none holds a provider's answer or anybody's data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_BY_THE_MACHINE = {
    errno.ENOSPC: "the disk that holds {} is full. Free it and run this again",
    errno.EDQUOT: "the disk quota is used up where {} is. Free some of it and run this again",
    errno.EROFS: "the disk that holds {} can only be read. Let it be written, or name a folder on another one in ACTIVATIONS_VAR",
    errno.EACCES: "the user who runs this may not use {}. Let them read and write it",
    errno.EPERM: "the user who runs this may not use {}. Let them read and write it",
}


class ActivationsError(Exception):
    """The base of everything this package raises on purpose; `str()` is one line for a person."""


class ConfigError(ActivationsError):
    """A file, a key, the value found there, and the fix."""

    def __init__(
        self, problem: str, *, file: Path | str | None = None, key: str | None = None, fix: str | None = None
    ) -> None:
        self.problem, self.file, self.key, self.fix = problem, file, key, fix
        where = ": ".join(str(part) for part in (file, key) if part)
        super().__init__((f"{where}: " if where else "") + problem + (f". {fix}" if fix else ""))


class SecretError(ConfigError):
    """A reference to a credential that leads nowhere."""


class WarehouseError(ActivationsError):
    """The warehouse cannot be read or written."""


class WarehouseLocked(WarehouseError):
    """Another process holds the warehouse."""


class RelationMissing(WarehouseError):
    """A table or column that the plan needs is not in the warehouse."""


class PlanRejected(ActivationsError):
    """A plan cannot be made, or the world moved since it was made."""


class PackageMissing(ActivationsError):
    """What a setting asks for needs a package that few have installed."""

    def __init__(self, what: str, package: str | None) -> None:
        super().__init__(
            f"{what} is on Postgres, and the package {package} is not installed. Run `pip install -r requirements-postgres.lock`"
        )


class MachineError(ActivationsError):
    """The machine refuses a file or a folder."""

    @classmethod
    def of(cls, error: OSError, root: Path, place: Path | None = None) -> Self:
        """Paths are shown as seen from `root`. A write that fails does not say to which file: `place` does."""
        named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else place
        shown = named.relative_to(root) if named and named.is_relative_to(root) else named or "the output"
        usual = f"{{}} cannot be used ({error.strerror}). Look at what is there and run this again"
        return cls(_BY_THE_MACHINE.get(error.errno or 0, usual).format(shown))


@contextmanager
def machine_errors(root: Path, place: Path) -> Iterator[None]:
    """What the machine refuses meanwhile is a MachineError."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a library's own error that only inherits from it
            raise
        raise MachineError.of(error, root, place) from error


class SyncBusy(ActivationsError):
    """Another engine holds the lease of this sync."""


class Fenced(ActivationsError):
    """A newer engine took the sync over; this one must not write another word."""


class DeliveryError(ActivationsError):
    """Raised inside `Destination.exchange`; the engine turns it into outcomes."""


class BatchRefused(DeliveryError):
    """The provider refused the whole batch and did not say which row is bad. `reason` is our own short code."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the destination refused the batch ({reason})")


class UnreadableResponse(DeliveryError):
    """The answer cannot be understood, so what it accepted is unknown."""

    reason = "unreadable_answer"


class FatalDestinationError(DeliveryError):
    """Nothing more can be sent until somebody acts. `fix` says what to do."""

    def __init__(self, reason: str, *, fix: str) -> None:
        self.reason, self.fix = reason, fix
        super().__init__(f"{reason}. {fix}")

"""What can go wrong, and what to do about it.

ActivationsError
├── ConfigError               a file says something that cannot be: fix the file
│   └── SecretError           a credential reference points at nothing
├── WarehouseError            the warehouse cannot be read or written
│   ├── WarehouseLocked       another process holds it: wait or stop that process
│   └── RelationMissing       a table is not there: build dbt, or run `activations init`
├── PlanRejected              a plan cannot be made, or is no longer true
├── PackageMissing            an optional package is not installed: install it
├── SyncBusy                  another engine is working on this sync
├── Fenced                    a newer engine took this sync over: stop at once
└── DeliveryError             raised by a destination while it talks to its API
    ├── BatchRefused          the provider refused the batch without saying which row: split it
    ├── UnreadableResponse    a body that cannot be understood: nobody knows what was accepted
    └── FatalDestinationError nothing more can be sent until a person acts (credentials, permissions, terms)

Every text ends with what to do next, and none holds a provider's answer or anybody's data.
"""

from __future__ import annotations

from pathlib import Path


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

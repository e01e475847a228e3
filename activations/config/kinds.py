"""What the configuration asks of a kind of destination. Which kinds exist is handed in, so no vendor is known here."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from pydantic import SecretStr

from activations.config.egress import host_of
from activations.model import Capabilities


class Kind(Protocol):
    """What must be known before anything is sent; `destinations.base.Destination` has it."""

    kind: ClassVar[str]
    Config: ClassVar[type[Any]]
    TargetConfig: ClassVar[type[Any]]
    capabilities: ClassVar[Capabilities]

    @classmethod
    def check_mapping(
        cls, identifiers: frozenset[str], fields: frozenset[str], target: Any
    ) -> str | None: ...


def own_host(kind: type[Kind]) -> str | None:
    """The host of the vendor itself, which may always be called."""
    return host_of(kind.Config.model_fields["base_url"].default or "")


def secret_keys(kind: type[Kind]) -> frozenset[str]:
    """The options of a kind that hold credentials: those typed SecretStr."""
    fields = kind.Config.model_fields.items()
    return frozenset(name for name, field in fields if field.annotation in (SecretStr, SecretStr | None))

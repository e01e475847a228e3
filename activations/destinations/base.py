"""The shape of a destination: declared facts and one generator that speaks the vendor's API.

A destination knows requests and answers, nothing else. Retry, rate limits, batching, secrets, hashing of keys,
journal and ledger belong to the engine, which drives `exchange`: it sends every yielded `Request`, hands the
`Response` back, sleeps on `Wait`, and turns the returned row results into outcomes. What the generator never sees:

* 429 – never accepted: the engine waits as told and repeats that request.
* 401 and 403 – the engine stops the run, nothing was accepted.
* 3xx – the engine stops the run, and the whole batch is in doubt.
* 5xx, time-outs, resets, truncated bodies – nobody knows: the whole batch is in doubt.

What it does see: every 2xx and every other 4xx. A 2xx is not a yes until the body was read item by item; one that is so
odd that reading it fails is in doubt too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import ClassVar, Generic, TypeVar

import polars as pl
from pydantic import SecretStr

from activations.config.base import Strict
from activations.model import (
    Batch,
    Callback,
    Capabilities,
    Columns,
    Confirmation,
    Request,
    Response,
    RowResult,
    Wait,
)

Exchange = Generator[Request | Wait, Response, Sequence[RowResult]]


class DestinationConfig(Strict):
    """Keys of one account in destinations.yml beyond `kind`, `environment` and `rate_limit`.

    Fields typed `SecretStr` are credentials: in the YAML they must be references (`env:NAME`, `file:path`).
    `base_url` has the vendor's address as default; with `environment: sandbox` the engine replaces it.
    """

    base_url: str


class Target(Strict):
    """What one sync says about its place inside the account (`target:` in the sync's YAML): list, audience, text."""

    place: ClassVar[frozenset[str]] = frozenset()
    """Keys that name the place itself: when one changes, the people are somewhere else. The others only say how."""


ConfigT = TypeVar("ConfigT", bound=DestinationConfig)
TargetT = TypeVar("TargetT", bound=Target)


class Destination(ABC, Generic[ConfigT, TargetT]):
    """One account of one vendor, for one sync. Built per run; keeps no state between batches."""

    kind: ClassVar[str]
    Config: ClassVar[type[DestinationConfig]]
    TargetConfig: ClassVar[type[Target]]
    capabilities: ClassVar[Capabilities]

    def __init__(self, config: ConfigT, target: TargetT) -> None:
        self.config = config
        self.target = target

    @abstractmethod
    def exchange(self, batch: Batch) -> Exchange:
        """Yield each request, receive its answer, return exactly one result per row of the batch.

        Raises BatchRefused when the provider refused the batch without naming a row (the engine splits it),
        FatalDestinationError when a person has to act first, UnreadableResponse when an answer makes no sense.
        """

    def write(self, columns: Columns) -> pl.DataFrame | None:
        """Many rows at once, for destinations whose batches are so large that one by one is too slow: a line per row with
        its `text` as it travels, separator included, and whatever else `exchange` needs to know of it. A batch has as
        `written` each of these columns, the lines of its rows put together. None: they are written one by one."""
        return None

    def confirmation(self, callback: Callback) -> Confirmation | None:
        """The message of ours that the provider took, if it provably wrote this callback; None when it did not, or
        when that is about something else. Needs `confirms`."""
        return None

    @classmethod
    def check_mapping(
        cls, identifiers: frozenset[str], fields: frozenset[str], target: TargetT
    ) -> str | None:
        """A problem with what a sync maps, in one sentence, or None. Called when the sync's YAML is loaded."""
        return None

    @classmethod
    def requests_for(cls, rows: int, *, removals: bool) -> int:
        """About how many requests a batch of so many rows takes, for the cost that a plan shows."""
        return 1


def reveal(secret: SecretStr) -> str:
    """The only place where a credential becomes text: at the header it is written into."""
    return secret.get_secret_value()

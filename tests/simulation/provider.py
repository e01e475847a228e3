"""The other side: a webhook receiver with a memory, and every fault of the protocol's fault mix.

It also is the place where a request arrives, so it asks the judge about every one of them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from activations.delivery.transport import NoAnswer, NotSent
from activations.model import Request, Response
from tests.simulation.ports import Ports

PEOPLE, MESSAGES = "people", "messages"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request as it left our side."""

    sync: str
    run_id: str
    number: int
    changes: Sequence[Mapping[str, Any]]
    left_at: float


class Judge(Protocol):
    def on_departure(self, arrival: Arrival) -> None: ...

    def on_applied(self, arrival: Arrival) -> None: ...

    def on_ambiguous(self, arrival: Arrival) -> None: ...

    def on_wait(self, arrival: Arrival, seconds: float) -> None: ...


@dataclass(slots=True)
class Provider:
    """`held`: key → row of the mirror; `deliveries`: (person, occurrence) → how often that message went out."""

    ports: Ports
    random: random.Random
    settle_seconds: float
    names_bad_rows: bool
    """Whether a bad row is named in the answer, or the whole batch is refused without a word."""
    is_bad: Callable[[Mapping[str, Any]], bool]
    judge: Judge
    fault_rate: float = 0.0
    favourite_fault: int | None = None
    """Half of all faults are of this kind, so that rare chains of one kind happen too."""
    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    deliveries: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: set[tuple[str, str]] = field(default_factory=set)
    """Messages that were refused for good at least once."""
    token_is_valid: bool = True
    requests: int = 0
    late: int = 0
    """Requests that are still under way although their sender gave up."""

    # -- the transport's port ----------------------------------------------------------------------------------

    def send(self, request: Request, *, seconds: float) -> Response:
        arrival = self._arrival(request)
        self.judge.on_departure(
            arrival
        )  # where the engine's last check ends; a pause after it nobody can fence
        self.ports.step()
        self.requests += 1
        self._travel()
        fault = self._draw()
        self.ports.seen[f"fault_{fault.__name__.strip('_')}"] += fault is not Provider._answer
        response = fault(self, arrival, seconds)
        self._travel()
        return response

    def _arrival(self, request: Request) -> Arrival:
        body = json.loads(request.body or b"{}")
        return Arrival(body["sync"], body["run"], body["batch"], body["changes"], self.ports.scheduler.now)

    def _travel(self) -> None:
        self.ports.scheduler.sleep(self.random.uniform(0.005, 0.2))
        self.ports.step()

    def _draw(self) -> Callable[[Provider, Arrival, float], Response]:
        if not self.token_is_valid:
            return Provider._unauthorised
        if self.random.random() < self.fault_rate:
            if self.favourite_fault is not None and self.random.random() < 0.5:
                return FAULTS[self.favourite_fault]
            return self.random.choice(FAULTS)
        return Provider._answer

    # -- what it does with a request ---------------------------------------------------------------------------

    def _answer(self, arrival: Arrival, _seconds: float) -> Response:
        return self._accept(arrival)

    def _accept(self, arrival: Arrival, *, later: frozenset[int] = frozenset()) -> Response:
        """Apply all good rows but those in `later`, which are answered with `retry`."""
        bad = {n for n, change in enumerate(arrival.changes) if self.is_bad(change)}
        if arrival.sync == MESSAGES and (self.names_bad_rows or len(arrival.changes) == 1):
            fields = [arrival.changes[n]["fields"] for n in sorted(bad)]
            self.refused.update((f["person"], f["event"]) for f in fields)
        if bad and not self.names_bad_rows:
            self.ports.seen["fault_batch_refused"] += 1
            return Response(status=400, body=b"{}")
        if bad:
            self.ports.seen["fault_row_refused"] += 1
        good = [c for n, c in enumerate(arrival.changes) if n not in bad and n not in later]
        self._apply(arrival, good)
        return self._results(
            [
                "rejected" if n in bad else "retry" if n in later else "ok"
                for n in range(len(arrival.changes))
            ],
            arrival,
        )

    @staticmethod
    def _results(statuses: Sequence[str], arrival: Arrival) -> Response:
        results = [
            {"key": change["key"], "status": status, "reason": "bad_row"}
            for change, status in zip(arrival.changes, statuses, strict=True)
        ]
        return Response(status=200, body=json.dumps({"results": results}).encode())

    def _apply(self, arrival: Arrival, changes: Sequence[Mapping[str, Any]]) -> None:
        for change in changes:
            if arrival.sync == MESSAGES:
                self.deliveries[change["fields"]["person"], change["fields"]["event"]] += 1
            elif change["operation"] == "removed":
                self.held.pop(change["key"], None)
            else:
                self.held[change["key"]] = {**change["identifiers"], **change["fields"]}
        self.judge.on_applied(arrival)

    # -- faults ------------------------------------------------------------------------------------------------

    def _refused_connection(self, _arrival: Arrival, _seconds: float) -> Response:
        raise NotSent("cannot_connect")

    def _throttled(self, arrival: Arrival, _seconds: float) -> Response:
        seconds = self.random.choice((2, 10, 90))
        self.judge.on_wait(arrival, seconds)
        return Response(status=429, headers={"retry-after": str(seconds)})

    def _unauthorised(self, _arrival: Arrival, _seconds: float) -> Response:
        return Response(status=401)

    def _token_expires(self, arrival: Arrival, seconds: float) -> Response:
        self.token_is_valid = False
        renewed = self.ports.scheduler.now + self.random.uniform(5, 60)
        self.ports.scheduler.at(renewed, self.renew_token)
        return self._unauthorised(arrival, seconds)

    def renew_token(self) -> None:
        self.token_is_valid = True

    def _error_before(self, arrival: Arrival, _seconds: float) -> Response:
        self.judge.on_ambiguous(arrival)
        return Response(status=500)

    def _error_after(self, arrival: Arrival, seconds: float) -> Response:
        self._accept(arrival)
        return self._error_before(arrival, seconds)

    def _reset_before(self, arrival: Arrival, _seconds: float) -> Response:
        self.judge.on_ambiguous(arrival)
        raise NoAnswer("connection_lost")

    def _reset_after(self, arrival: Arrival, seconds: float) -> Response:
        self._accept(arrival)
        return self._reset_before(arrival, seconds)

    def _timeout_before(self, arrival: Arrival, seconds: float) -> Response:
        self.judge.on_ambiguous(arrival)
        self.ports.scheduler.sleep(seconds)
        raise NoAnswer("timeout")

    def _timeout_after(self, arrival: Arrival, seconds: float) -> Response:
        self._accept(arrival)
        return self._timeout_before(arrival, seconds)

    def _applied_late(self, arrival: Arrival, seconds: float) -> Response:
        self.late += 1

        def apply() -> None:
            self.late -= 1
            self._accept(arrival)

        delay = self.random.uniform(0, self.settle_seconds - 3)
        self.ports.scheduler.at(self.ports.scheduler.now + delay, apply)
        return self._timeout_before(arrival, min(seconds, self.settle_seconds / 4))

    def _malformed_after(self, arrival: Arrival, _seconds: float) -> Response:
        answer = self._accept(arrival)
        self.judge.on_ambiguous(arrival)
        return Response(status=answer.status, body=b"<html>gateway</html>") if answer.is_success else answer

    def _truncated_after(self, arrival: Arrival, _seconds: float) -> Response:
        answer = self._accept(arrival)
        self.judge.on_ambiguous(arrival)
        if not answer.is_success:
            return answer
        return Response(status=answer.status, body=answer.body[: len(answer.body) // 2])

    def _partial_success(self, arrival: Arrival, _seconds: float) -> Response:
        """Some rows of a good answer carry a "try again"; HTTP says 200 all the same."""
        count = self.random.randint(1, len(arrival.changes))
        return self._accept(
            arrival, later=frozenset(self.random.sample(range(len(arrival.changes)), k=count))
        )

    def _silent_about_rows(self, arrival: Arrival, _seconds: float) -> Response:
        """Everything was applied, and the answer leaves out the last row."""
        answer = self._accept(arrival)
        self.judge.on_ambiguous(arrival)
        if not answer.is_success:
            return answer
        body = json.loads(answer.body)
        return Response(status=200, body=json.dumps({"results": body["results"][:-1]}).encode())


FAULTS = (
    Provider._refused_connection,
    Provider._throttled,
    Provider._token_expires,
    Provider._error_before,
    Provider._error_after,
    Provider._reset_before,
    Provider._reset_after,
    Provider._timeout_before,
    Provider._timeout_after,
    Provider._applied_late,
    Provider._malformed_after,
    Provider._truncated_after,
    Provider._partial_success,
    Provider._silent_about_rows,
)
APPLIED_LATE = FAULTS.index(Provider._applied_late)
THROTTLED = FAULTS.index(Provider._throttled)

"""A tiny engine: drives a destination's `exchange` over real HTTP by the rules that destinations/base.py states."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import requests

from activations.destinations.base import Destination
from activations.model import Batch, Change, Operation, Request, Response, RowResult, Wait

LONGEST_SLEEP = 0.02


class InDoubt(Exception):
    """3xx, 5xx, a time-out, a reset: nobody knows what was accepted."""


class Stopped(Exception):
    """401 or 403: nothing was accepted, and nothing more may be sent."""


@dataclass
class Driver:
    """Sends requests, remembers them with their answers, hands answers back."""

    timeout: float = 5.0
    seen: list[tuple[requests.PreparedRequest, requests.Response]] = field(default_factory=list)
    session: requests.Session = field(default_factory=requests.Session)

    def run(
        self, destination: Destination[Any, Any], changes: Sequence[Change], **batch: Any
    ) -> dict[str, RowResult]:
        """One batch; the results by row, after checking that there is exactly one each."""
        results = self.drive(destination, a_batch(changes, **batch))
        assert sorted(result.key for result in results) == sorted(change.key for change in changes)
        return {result.key: result for result in results}

    def drive(self, destination: Destination[Any, Any], batch: Batch) -> list[RowResult]:
        flow, answer = destination.exchange(batch), None
        try:
            while True:
                step = flow.send(answer)
                answer = self._sleep(step) if isinstance(step, Wait) else self._answer(step)
        except StopIteration as finished:
            return list(finished.value)

    def _sleep(self, wait: Wait) -> None:
        time.sleep(min(wait.seconds, LONGEST_SLEEP))

    def _answer(self, request: Request) -> Response:
        for _ in range(5):
            answer = self._send(request)
            if answer.status_code != 429:
                break
            time.sleep(min(float(answer.headers["Retry-After"]), LONGEST_SLEEP))
        if answer.status_code in (401, 403):
            raise Stopped(answer.status_code)
        if answer.status_code >= 500 or 300 <= answer.status_code < 400:
            raise InDoubt(answer.status_code)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return Response(status=answer.status_code, headers=headers, body=answer.content)

    def _send(self, request: Request) -> requests.Response:
        prepared = prepare(request)
        try:
            answer = self.session.send(prepared, timeout=self.timeout, allow_redirects=False)
        except (requests.ConnectionError, requests.Timeout) as failure:
            raise InDoubt(type(failure).__name__) from None
        self.seen.append((prepared, answer))
        return answer


def prepare(request: Request) -> requests.PreparedRequest:
    return requests.Request(
        request.method,
        request.url,
        headers=dict(request.headers),
        params=dict(request.params),
        json=request.json_body,
        data=request.form if request.form is not None else request.body,
    ).prepare()


def a_batch(changes: Sequence[Change], **values: Any) -> Batch:
    defaults: dict[str, Any] = {
        "sync": "a_sync",
        "run_id": "run1",
        "number": 1,
        "idempotency_key": f"batch_{time.time_ns()}",
    }
    return Batch(changes=list(changes), **{**defaults, **values})


def pseudonym(n: int) -> str:
    return f"{n + 1:064x}"


def an_addition(n: int, identifiers: dict[str, str], fields: dict[str, Any] | None = None) -> Change:
    return Change(
        key=str(n),
        operation=Operation.ADDED,
        identifiers=identifiers,
        fields=fields or {},
        pseudonym=pseudonym(n),
    )


def a_change(
    n: int, identifiers: dict[str, str], fields: dict[str, Any], destination_key: str | None
) -> Change:
    return Change(
        key=str(n),
        operation=Operation.CHANGED,
        identifiers=identifiers,
        fields=fields,
        destination_key=destination_key,
        pseudonym=pseudonym(n),
    )


def a_removal(n: int, destination_key: str | None, identifiers: dict[str, str] | None = None) -> Change:
    return Change(
        key=str(n),
        operation=Operation.REMOVED,
        identifiers=identifiers or {},
        fields={},
        destination_key=destination_key,
        pseudonym=pseudonym(n),
    )


def outcomes(results: dict[str, RowResult]) -> dict[str, str]:
    return {key: result.outcome.value for key, result in results.items()}


def canned(destination: Destination[Any, Any], batch: Batch, answers: Iterable[Response]) -> list[RowResult]:
    """Drive an exchange with prepared answers and no network."""
    flow, remaining = destination.exchange(batch), iter(answers)
    try:
        step = next(flow)
        while True:
            step = flow.send(None) if isinstance(step, Wait) else flow.send(next(remaining))  # type: ignore[arg-type]
    except StopIteration as finished:
        return list(finished.value)

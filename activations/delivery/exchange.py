"""Driving one destination's generator, and telling apart what is known from what is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from activations.clock import Clock
from activations.delivery.pace import Pace
from activations.delivery.rate import LONGEST_PATIENCE, RateLimiter, retry_after
from activations.delivery.transport import NoAnswer, NotSent, Transport
from activations.destinations.base import Destination, Exchange
from activations.errors import BatchRefused, FatalDestinationError, UnreadableResponse
from activations.model import AllDelivered, Batch, Outcome, Request, Response, RowResult, Wait

SHORTEST_PAUSE = 0.5
"""Seconds after a 429 that names no time, or none to speak of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known about a batch. With `fatal`, nothing more may be sent in this run."""

    results: Sequence[RowResult]
    requests: int
    retry_after: float | None = None
    fatal: FatalDestinationError | None = None

    @property
    def all_delivered(self) -> bool:
        return isinstance(self.results, AllDelivered)

    def is_nothing_but(self, *outcomes: Outcome) -> bool:
        """Whether there are rows with a result, and all of them have one of these."""
        if self.all_delivered:
            return Outcome.DELIVERED in outcomes
        return bool(self.results) and all(result.outcome in outcomes for result in self.results)


@dataclass(slots=True)
class Conversation:
    """One batch's exchange. BatchRefused passes through, as long as nothing of the batch was taken before: only the
    caller can split a batch."""

    destination: Destination  # type: ignore[type-arg]
    transport: Transport
    limiter: RateLimiter
    pace: Pace
    clock: Clock
    send_by: datetime
    """Until when the intent holds: no request leaves after this."""
    renew: Callable[[], datetime | None]
    """Commits the intent once more, for what follows on a request that was taken: until when that holds; None when
    somebody of the batch has said no meanwhile."""
    seconds: float = 60.0
    requests: int = 0
    """Requests that left, or may have left."""
    accepted: int = 0
    """Requests that the destination took: once there is one, a failure leaves the batch unknown."""

    def hold(self, batch: Batch) -> Verdict:
        """Send the batch and return one result per row."""
        try:
            return Verdict(results=_checked(batch, self._drive(batch)), requests=self.requests)
        except BatchRefused:
            if not self.accepted:
                raise
            return self._all(batch, Outcome.UNKNOWN, "refused_after_acceptance")
        except _Throttled as throttled:
            return self._not_taken(batch, "throttled", retry_after=throttled.seconds)
        except NotSent as failure:
            return self._not_taken(batch, failure.reason)
        except FatalDestinationError as failure:
            return self._stopped(batch, failure)
        except (NoAnswer, UnreadableResponse) as failure:
            return self._all(batch, Outcome.UNKNOWN, failure.reason)

    def _not_taken(self, batch: Batch, reason: str, **circumstances: Any) -> Verdict:
        """This request was not accepted; if one before it was, the batch as a whole is in doubt."""
        outcome = Outcome.UNKNOWN if self.accepted else Outcome.RETRYABLE
        return self._all(batch, outcome, reason, **circumstances)

    def _stopped(self, batch: Batch, failure: FatalDestinationError) -> Verdict:
        if isinstance(failure, _Redirected):
            return self._all(batch, Outcome.UNKNOWN, "redirected", fatal=failure)
        return self._not_taken(batch, "destination_refused", fatal=failure)

    def _all(self, batch: Batch, outcome: Outcome, reason: str, **circumstances: Any) -> Verdict:
        results = [RowResult(key=change.key, outcome=outcome, reason=reason) for change in batch.changes]
        return Verdict(results=results, requests=self.requests, **circumstances)

    def _drive(self, batch: Batch) -> Sequence[RowResult]:
        flow = self.destination.exchange(batch)
        try:
            step = next(flow)
            while True:
                if isinstance(step, Wait):
                    self.clock.sleep(step.seconds)
                    step = next(flow)
                else:
                    asked, answer = step, self._answer(step)
                    step = _read(flow, answer)
                    # Only now, since the destination may have read a refusal in it; and looking is not taking.
                    self.accepted += answer.is_success and asked.method != "GET"
        except StopIteration as finished:
            results: Sequence[RowResult] = finished.value
            return results
        finally:
            flow.close()

    def _answer(self, request: Request) -> Response:
        """The answer, once it is one that the destination has to understand."""
        patience = LONGEST_PATIENCE
        while True:
            response = self._send(request)
            if response.status != 429:
                break
            pause = max(retry_after(response, self.clock.now(), default=1.0), SHORTEST_PAUSE)
            # Before the first request is taken nothing is lost by starting over, and then consent is read again.
            if not self.accepted or pause > patience:
                raise _Throttled(pause)
            patience -= pause + 0.1
            self.limiter.postpone(pause)
        _refuse_unusable(response)
        return response

    def _send(self, request: Request) -> Response:
        """The caller took the first request's place in the rate before it committed the intent."""
        if self.requests and (pause := self.limiter.wait()):
            raise _Throttled(pause)
        if request.method != "GET":  # asking how far a job is tells nobody anything
            self._hold_on()
        self.requests += 1
        started = self.clock.monotonic()
        try:
            response = self.transport.send(request, seconds=self.seconds)
        except (NotSent, NoAnswer):
            self.pace.trouble(started)
            raise
        is_trouble = response.status == 429 or response.status >= 500
        (self.pace.trouble if is_trouble else self.pace.answered)(started)
        return response

    def _hold_on(self) -> None:
        """Nothing leaves on an intent that has run out. Before the first request was taken it costs nothing to claim
        the batch anew."""
        if self.clock.now() <= self.send_by:
            return
        if not self.accepted:
            raise NotSent("too_late")
        renewed = self.renew()
        if renewed is None:
            raise NotSent("suppressed_meanwhile")
        self.send_by = renewed


class _Throttled(Exception):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class _Redirected(FatalDestinationError):
    """Nothing more is sent, but no proof that nothing was taken: whoever took a POST may answer with the page to see next
    (303), and a gateway with one to log in at."""


def _read(flow: Exchange, answer: Response) -> Request | Wait:
    """The destination's next step.

    So many errors are caught, because an answer may be any JSON at all, from whatever stands between us and the provider:
    a text where an object should be, a list as a code. However a destination stumbles over it, what was sent is in doubt,
    and neither the run nor the syncs after it end for that. The error itself may quote the answer, so only its name is
    kept.
    """
    try:
        return flow.send(answer)
    except (AttributeError, TypeError, LookupError, ValueError, RecursionError) as failure:
        problem = f"HTTP {answer.status} with an answer of another shape ({type(failure).__name__})"
        raise UnreadableResponse(problem) from None


def _refuse_unusable(response: Response) -> None:
    if response.status in (401, 403):
        raise FatalDestinationError(
            f"the destination refused our credentials (HTTP {response.status})",
            fix="Check the credential and its permissions in destinations.yml",
        )
    if 300 <= response.status < 400:
        raise _Redirected(
            f"the destination redirects (HTTP {response.status})",
            fix="Put the final address into destinations.yml",
        )
    if response.status >= 500:
        raise NoAnswer(f"http_{response.status}")


def _checked(batch: Batch, results: Sequence[RowResult]) -> Sequence[RowResult]:
    """Exactly one result per row, in the batch's order; a row without a word of its own is in doubt."""
    if isinstance(results, AllDelivered):
        return results
    said: dict[str, RowResult] = {}
    for result in results:
        repeated = result.key in said
        said[result.key] = (
            RowResult(key=result.key, outcome=Outcome.UNKNOWN, reason="contradictory_results")
            if repeated
            else result
        )
    return [
        said.get(c.key, RowResult(key=c.key, outcome=Outcome.UNKNOWN, reason="no_result"))
        for c in batch.changes
    ]

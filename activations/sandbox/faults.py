"""The fault dial: what can go wrong between two computers, on demand.

A fault is armed for one vendor (or `*`), optionally for one method and a part of the path, and acts on the next so
many matching requests or on a share of them. `*_before` means the stand-in did nothing, `*_after` that it did.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    THROTTLED = "429"
    ERROR_BEFORE = "500_before"
    ERROR_AFTER = "500_after"
    TIMEOUT_AFTER = "timeout_after"
    RESET_AFTER = "reset_after"
    PARTIAL = "partial"
    MALFORMED = "malformed"


DESCRIPTIONS: Mapping[FaultKind, str] = {
    FaultKind.THROTTLED: "too many requests, nothing done, Retry-After given",
    FaultKind.ERROR_BEFORE: "server error, nothing done",
    FaultKind.ERROR_AFTER: "done, but the answer is a server error",
    FaultKind.TIMEOUT_AFTER: "done, but the answer never comes",
    FaultKind.RESET_AFTER: "done, but the connection breaks",
    FaultKind.PARTIAL: "some rows are refused",
    FaultKind.MALFORMED: "done, but the answer is cut off",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One setting of the dial. Without `probability` it acts `next_n` times, with it on that share of requests."""

    kind: FaultKind
    vendor: str = "*"
    next_n: int | None = 1
    probability: float = 1.0
    method: str = ""
    path: str = ""
    retry_after: int = 1
    seconds: float = 30.0
    """How long a time-out lasts before the connection is dropped."""

    @classmethod
    def parse(cls, values: Mapping[str, Any], vendors: frozenset[str]) -> Fault:
        """From JSON or a form; a ValueError says which value is wrong."""
        for key in values:
            _one_of("key", key, cls.__slots__)
        limit = values.get("next_n", None if "probability" in values else 1)
        return cls(
            kind=FaultKind(_one_of("kind", values.get("kind"), list(FaultKind))),
            vendor=_one_of("vendor", values.get("vendor", "*"), ["*", *sorted(vendors)]),
            next_n=None if limit is None else int(_number("next_n", limit, 1, 1_000_000)),
            probability=_number("probability", values.get("probability", 1.0), 0.000_001, 1),
            method=str(values.get("method", "")).upper(),
            path=str(values.get("path", "")),
            retry_after=int(_number("retry_after", values.get("retry_after", 1), 0, 86_400)),
            seconds=_number("seconds", values.get("seconds", 30.0), 0, 3_600),
        )

    def matches(self, vendor: str, method: str, path: str) -> bool:
        return (
            self.vendor in ("*", vendor)
            and self.method in ("", method)
            and (not self.path or self.path in path)
        )


def _one_of(name: str, value: Any, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"there is no {name} {value!r}. Use one of: {', '.join(known)}")
    return str(value)


def _number(name: str, value: Any, least: float, most: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise ValueError(f"{name} is a number from {least:,} to {most:,}, not {value!r}")
    return number


class FaultDial:
    """Armed faults, first armed first served. Gone when the sandbox stops."""

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        self._armed: list[tuple[Fault, int | None]] = []
        self._random = random.Random(seed)  # noqa: S311 - a repeatable dial, not a secret

    def arm(self, fault: Fault) -> None:
        with self._lock:
            self._armed.append((fault, fault.next_n))

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def armed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{**asdict(fault), "kind": fault.kind.value, "left": left} for fault, left in self._armed]

    def draw(self, vendor: str, method: str, path: str) -> Fault | None:
        """The fault this request meets, if any."""
        with self._lock:
            for position, (fault, left) in enumerate(self._armed):
                if fault.matches(vendor, method, path) and self._random.random() < fault.probability:
                    self._spend(position, fault, left)
                    return fault
        return None

    def _spend(self, position: int, fault: Fault, left: int | None) -> None:
        if left == 1:
            del self._armed[position]
        elif left is not None:
            self._armed[position] = (fault, left - 1)

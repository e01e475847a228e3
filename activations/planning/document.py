"""A plan as a document: what a person reads, keeps beside a change and applies.

It names no row to send. Applying makes the plan again and goes on only when it is this very one, so nothing that was
read can be old: a row that changed, a mapping that changed or a ledger that moved gives another `plan_id`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from activations.digests import Digester
from activations.errors import ActivationsError, PlanRejected
from activations.model import Plan

FORMAT = "activations-plan/1"
_MADE_AGAIN = "Make the plan again with `activations plan {sync} --out FILE` and read it"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDocument:
    """The facts of a plan that was written down."""

    sync: str
    plan_id: str
    mapping: str
    ledger_position: str
    content_hash: str
    expires_at: datetime

    def check_time(self, now: datetime) -> None:
        if now >= self.expires_at:
            raise PlanRejected(
                f"the plan {self.plan_id} expired at {self.expires_at:%Y-%m-%d %H:%M} UTC. {self._again()}"
            )

    def check(self, plan: Plan) -> None:
        """PlanRejected, saying what moved, unless `plan` is the one that was written down."""
        if plan.plan_id != self.plan_id:
            raise PlanRejected(
                f"the plan {self.plan_id} no longer is what a run would do: {self._moved(plan)}. {self._again()}"
            )

    def _moved(self, plan: Plan) -> str:
        if plan.mapping != self.mapping:
            return "the sync's mapping, mode, target or account changed"
        if plan.ledger_position != self.ledger_position:
            return "another run moved the ledger"
        return f"the audience, consent or the rows in doubt changed (now {plan.counts.added} added, {plan.counts.changed} changed, {plan.counts.removed} removed)"

    def _again(self) -> str:
        return _MADE_AGAIN.format(sync=self.sync)


def check_place(path: Path) -> None:
    """A plan takes the place of an older plan, and of nothing else."""
    if not path.parent.is_dir():
        raise ActivationsError(
            f"there is no folder {path.parent} for the plan. Make it, or name a file elsewhere"
        )
    if path.exists() and not _is_plan(path):
        raise ActivationsError(f"{path} is there and is no plan, so it is not replaced. Name another file")


def _is_plan(path: Path) -> bool:
    try:
        return path.is_file() and str(_parsed(path).get("format")).startswith("activations-plan/")
    except PlanRejected:
        return False


def write(path: Path, shown: Mapping[str, Any], sign: Digester) -> None:
    """`shown` is the plan as `plan --json` prints it. Written whole or not at all, for its owner's eyes."""
    check_place(path)
    document = {"format": FORMAT, **shown}
    document["signature"] = _signature(document, sign)
    draft = None
    try:
        with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as stream:
            draft = Path(stream.name)
            stream.write(json.dumps(document, indent=2) + "\n")
        draft.replace(path)
    except OSError as error:
        if draft:
            draft.unlink(missing_ok=True)
        raise ActivationsError(f"the plan cannot be written to {path} ({error.strerror})") from None


def read(path: Path, sign: Digester) -> PlanDocument:
    """A document that this installation wrote and nobody altered."""
    document = _parsed(path)
    if document.get("format") != FORMAT:
        raise PlanRejected(
            f"{path.name} is no plan of this version (format: {document.get('format')!r}, not {FORMAT!r}). Write one with `activations plan SYNC --out FILE`"
        )
    signature = document.pop("signature", None)
    if signature != _signature(document, sign):
        raise PlanRejected(
            f"{path.name} was altered, or written by an installation with another key. Make the plan again and read it"
        )
    return PlanDocument(
        **{
            name: document[name] for name in ("sync", "plan_id", "mapping", "ledger_position", "content_hash")
        },
        expires_at=datetime.fromisoformat(document["expires_at"]),
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanRejected(f"the plan {path} cannot be read ({error.strerror})") from None
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise PlanRejected(f"{path.name} is no plan: it is not a JSON object")
    return document


def _signature(document: Mapping[str, Any], sign: Digester) -> str:
    return sign(json.dumps(document, sort_keys=True))

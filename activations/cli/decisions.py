"""What people decide: what may pass, what is tried or sent again, whom nothing reaches any more; and the trail of it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from activations.cli import tables
from activations.cli.context import Json, engine_of
from activations.cli.output import Exit, err, out, print_result
from activations.errors import ActivationsError
from activations.feedback import read_callbacks


def _text(value: str) -> str:
    """As the journal can keep it: a terminal of another encoding hands over what is no text."""
    return value.encode("utf-8", "replace").decode()


def _said(flag: str, what: str) -> Any:
    return typer.Option(flag, help=what, callback=_text)


Name = Annotated[str, typer.Argument(help="A sync by name.")]
By = Annotated[str, _said("--by", "Who decides it; kept in the audit trail.")]
Note = Annotated[str, _said("--note", "Why.")]
_PLAUSIBLE = re.compile(r"[^@\s\ufffd]+@[^@\s\ufffd]+|\+[0-9]{6,15}|[^@+\s\ufffd][^@\s\ufffd]*")
"""An e-mail, a phone, or an id. U+FFFD stands for bytes that are no UTF-8."""


def release(
    context: typer.Context,
    by: Annotated[str, _said("--by", "Who lets it pass; kept in the audit trail.")],
    sync: Annotated[str | None, typer.Argument(help="A sync by name: the plan its last run held.")] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", help="A file that `plan --out` wrote, instead.")
    ] = None,
    note: Annotated[str, _said("--note", "Why it may pass.")] = "",
    as_json: Json = False,
) -> None:
    """Let a plan that a guard holds pass, once and exactly as it is. Then run the sync again, or apply the plan."""
    _require_name(by)
    engine = engine_of(context)
    if (sync is None) == (plan is None):
        raise typer.BadParameter("name a sync, or a written plan with --plan")
    if plan:
        released, following = engine.release_plan(plan, by=by, note=note), f"activations apply {plan}"
    else:
        released, following = engine.release(str(sync), by=by, note=note), f"activations sync {sync}"
    print_result(
        {"released": released, "by": by},
        as_json,
        lambda: out.print(f"The plan {released} may pass. Next: `{following}`", soft_wrap=True),
    )


def retry(context: typer.Context, sync: Name, by: By, note: Note = "", as_json: Json = False) -> None:
    """Let the next run try the rows again that the destination refused, though their values are the same."""
    _require_name(by)
    rows = engine_of(context).retry(sync, by=by, note=note)
    print_result(
        {"retried": rows, "by": by},
        as_json,
        lambda: out.print(
            f"To be tried again: {tables.counted(rows, 'refused row')}. Next: `activations sync {sync}`"
        ),
    )


def resolve(
    context: typer.Context,
    sync: Name,
    delivered: Annotated[
        str | None,
        typer.Option("--delivered", metavar="HANDLE", help="It did arrive; say in --note how you know."),
    ] = None,
    resend: Annotated[
        str | None, typer.Option("--resend", metavar="HANDLE", help="Send it again, as a new message.")
    ] = None,
    by: By = "",
    second: Annotated[str, _said("--second", "Who agrees that it is sent again.")] = "",
    note: Annotated[str, _said("--note", "The evidence, or why.")] = "",
    as_json: Json = False,
) -> None:
    """List the messages in doubt of a sync, or settle one that a person found out about."""
    engine = engine_of(context)
    if delivered and resend:
        raise typer.BadParameter("a message was delivered or is sent again, not both", param_hint="--resend")
    if delivered:
        _require_name(by)
        _require_evidence(note)
        engine.mark_delivered(sync, delivered, by=by, note=note)
    elif resend:
        _require_name(by)
        engine.resend(sync, resend, by=by, second=second, note=note)
    messages = engine.in_doubt(sync)
    print_result(
        [tables.message_summary(message) for message in messages],
        as_json,
        lambda: out.print(tables.messages_table(sync, messages)),
    )


def feedback(
    context: typer.Context,
    destination: Annotated[str, typer.Argument(help="An account of destinations.yml.")],
    as_json: Json = False,
) -> None:
    """Settle messages in doubt that the provider says it took. Reads its signed callbacks from standard input, one JSON
    object a line: url, headers, body."""
    done = engine_of(context).feedback(destination, read_callbacks(sys.stdin))
    print_result(asdict(done), as_json, lambda: out.print(tables.feedback_text(done), soft_wrap=True))


def resync(context: typer.Context, sync: Name, by: By, note: Note = "", as_json: Json = False) -> None:
    """Send everybody's values again with the next run, without forgetting who has to leave. Guards still speak."""
    _require_name(by)
    rows = engine_of(context).resync(sync, by=by, note=note)
    print_result(
        {"resynced": rows, "by": by},
        as_json,
        lambda: out.print(
            f"To be sent again: {tables.counted(rows, 'row')}. `activations plan {sync}` shows whether a guard holds it."
        ),
    )


def suppress(
    context: typer.Context,
    reason: Annotated[str, _said("--reason", "objection, withdrawn, complaint, …")],
    channel: Annotated[str, typer.Option("--channel", help="email, sms, ads or all.")] = "all",
    lift: Annotated[bool, typer.Option("--lift", help="Take suppressions of this channel back.")] = False,
    as_json: Json = False,
) -> None:
    """Stop sending to people at once, before dbt is built again. Reads e-mails, phones (+49…) or person ids, one a
    line, from standard input."""
    if channel not in ("email", "sms", "ads", "all"):
        raise ActivationsError(f"there is no channel `{channel}`. Use email, sms, ads or all")
    values = _identifiers(sys.stdin)
    if not lift:
        _require_plausible(values)
    engine = engine_of(context)
    if lift:
        lifted = engine.lift(list(values.values()), channel=channel, reason=reason, source="cli")
        print_result(
            {"lifted": lifted},
            as_json,
            lambda: out.print(tables.lifted_text(len(values), channel, lifted), soft_wrap=True),
        )
        return
    done = engine.suppress(list(values.values()), channel=channel, reason=reason, source="cli")
    print_result(
        {
            "suppressed": len(values),
            "known": done.known,
            "effective_at": done.effective_at.isoformat(),
            "unasked": done.unasked,
        },
        as_json,
        lambda: out.print(tables.suppressed_text(len(values), channel, done), soft_wrap=True),
    )
    if done.unasked:
        err.print(tables.plain(tables.unasked_text(done.unasked)), soft_wrap=True)
        raise typer.Exit(Exit.PARTIAL)


def _identifiers(lines: Iterable[str]) -> dict[int, str]:
    """By the number of their line."""
    found = {number: line.strip() for number, line in enumerate(lines, 1) if line.strip()}
    if not found:
        raise ActivationsError(
            "nobody was named. Write e-mails, phones or person ids to standard input, one a line"
        )
    return found


def _require_plausible(values: Mapping[int, str]) -> None:
    """A "no" that can match nobody is refused with all that came with it, and not shown: it may be about somebody."""
    wrong = [str(number) for number, value in values.items() if not _PLAUSIBLE.fullmatch(value)]
    if wrong:
        raise ActivationsError(
            f"nobody is suppressed: no e-mail, phone or person id in line {', '.join(wrong[:5])}{' and more' if len(wrong) > 5 else ''}. Write one a line, phones as +491701234567"
        )


def forget(
    context: typer.Context,
    sync: Name,
    by: By,
    note: Note = "",
    as_json: Json = False,
) -> None:
    """Forget what the destination of a sync holds: the next run sends everybody again. Messages are not repeated."""
    _require_name(by)
    engine = engine_of(context)
    engine.forget(sync, by=by, note=note)
    goes_on = f" `activations plan {sync}` shows what is sent next." if sync in engine.project.syncs else ""
    print_result({"forgotten": sync, "by": by}, as_json, lambda: out.print(f"Forgotten.{goes_on}"))


def adopt(context: typer.Context, sync: Name, by: By, note: Note = "", as_json: Json = False) -> None:
    """Go on with a new journal where the old one is lost: what that had in doubt, nobody knows any more."""
    _require_name(by)
    engine_of(context).adopt(sync, by=by, note=note)
    print_result(
        {"adopted": sync, "by": by},
        as_json,
        lambda: out.print(f"Adopted. `activations plan {sync}` shows what is sent next."),
    )


def audit(context: typer.Context, as_json: Json = False) -> None:
    """Verify that no line of the audit trail was altered."""
    lines = engine_of(context).verify_audit()
    print_result(
        {"lines": lines, "intact": True},
        as_json,
        lambda: out.print(f"The audit trail is intact: {tables.counted(lines, 'line')}."),
    )


def _require_name(by: str) -> None:
    if not by.strip():
        raise ActivationsError("this needs the name of a person: --by")


def _require_evidence(note: str) -> None:
    if not note.strip():
        raise ActivationsError("say how you know that it arrived: --note")

"""Messages in doubt that the provider itself says it took, in callbacks with its signature and our key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from activations.config import Sync
from activations.errors import ActivationsError
from activations.model import Callback, SyncMode
from activations.parts import Parts, build_destination
from activations.run import recover


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What callbacks had to say."""

    callbacks: int
    ignored: int
    """Without the provider's signature, or about no message of ours."""
    confirmed: int
    """Messages that were in doubt, and are known to be sent now."""


def read_callbacks(lines: Iterable[str]) -> Iterator[Callback]:
    """One from each line that is not empty, as JSON."""
    return (_callback(number, line) for number, line in enumerate(lines, 1) if line.strip())


def _callback(number: int, line: str) -> Callback:
    try:
        said = json.loads(line)
        headers = {name.lower(): str(value) for name, value in said["headers"].items()}
        return Callback(url=str(said["url"]), headers=headers, body=str(said["body"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ActivationsError(
            f'line {number} is no callback. Write the request as a JSON object on one line: {{"url": "…", "headers": {{…}}, "body": "…"}}'
        ) from None


def settle(parts: Parts, account: str, callbacks: Iterable[Callback]) -> Feedback:
    """Settle what is in doubt in every sync of messages to this account. Safe to repeat with the same callbacks."""
    syncs = _syncs_that_are_confirmed(parts, account)
    destination = build_destination(parts.project, syncs[0])
    found = [destination.confirmation(callback) for callback in callbacks]
    said = [confirmation for confirmation in found if confirmation]
    provider_ids = {(c.pseudonym, c.run_id): c.provider_id for c in said}
    confirmed = sum(_confirm(parts, sync, provider_ids) for sync in syncs) if said else 0
    return Feedback(callbacks=len(found), ignored=len(found) - len(said), confirmed=confirmed)


def _syncs_that_are_confirmed(parts: Parts, account: str) -> list[Sync]:
    syncs = [sync for sync in parts.project.syncs.values() if sync.account.name == account]
    if not syncs:
        raise ActivationsError(
            f"no sync sends to `{account}`. Name an account of destinations.yml that one does"
        )
    confirmed = [s for s in syncs if s.mode is SyncMode.APPEND and s.capabilities.confirms]
    if not confirmed:
        raise ActivationsError(
            f"`{account}` confirms no messages. `activations resolve` settles doubts by hand"
        )
    return confirmed


def _confirm(parts: Parts, sync: Sync, provider_ids: Mapping[tuple[str, str], str]) -> int:
    rows = parts.rows(sync)
    with parts.leased(sync.name) as (journal, lease):
        recover(parts, sync, journal, lease)
        in_doubt = {
            (rows.pseudonym(row), row.run_id): row.message_key for row in journal.rows_in_doubt(sync.name)
        }
        taken = {key: provider_ids[name] for name, key in in_doubt.items() if name in provider_ids}
        journal.confirm(lease, taken)
    return len(taken)

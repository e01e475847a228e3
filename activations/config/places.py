"""One place, one sync: each compares with what it sent itself, so two that undo each other's work find everything
unchanged for ever."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations

from activations.config.kinds import Kind, secret_keys
from activations.config.syncs import Sync
from activations.errors import ConfigError
from activations.model import SyncMode


def check_places(syncs: Iterable[Sync], kinds: Mapping[str, type[Kind]]) -> None:
    """The first two that would undo each other's work are raised as ConfigError."""
    by_account: dict[str, list[Sync]] = defaultdict(list)
    for sync in syncs:
        if sync.mode is not SyncMode.APPEND and not sync.capabilities.keeps_syncs_apart:
            by_account[_account(sync, kinds[sync.account.kind])].append(sync)
    for neighbours in by_account.values():
        for first, second in combinations(neighbours, 2):
            _check_pair(first, second, kinds[second.account.kind])


def _account(sync: Sync, kind: type[Kind]) -> str:
    """Where people meet: the same credentials lead to the same account, whatever its name here."""
    account = sync.account
    way = {key: account.options.get(key) for key in (*sorted(secret_keys(kind)), "base_url", "url")}
    return json.dumps([account.kind, account.environment.value, way], default=str)


def _check_pair(first: Sync, second: Sync, kind: type[Kind]) -> None:
    names = sorted(kind.TargetConfig.place)
    key = f"target.{names[0]}" if names else "destination"
    is_one_place = all(str(first.target.get(name)) == str(second.target.get(name)) for name in names)
    if is_one_place and SyncMode.MIRROR in (first.mode, second.mode):
        place = second.target.get(names[0]) if names else second.account.name
        raise ConfigError(
            f"{first.file.name} goes to `{place}` too, and a mirror removes people whom the other sync wants there",
            file=second.file,
            key=key,
            fix=f"One audience per place: unite the segments in one model, or give one of the two another {key}",
        )
    if is_one_place or second.capabilities.shares_fields:
        _check_fields(first, second)


def _check_fields(first: Sync, second: Sync) -> None:
    shared = first.fields.keys() & second.fields.keys()
    if differing := sorted(name for name in shared if first.fields[name] != second.fields[name]):
        raise ConfigError(
            f"{first.file.name} maps `{differing[0]}` differently for the same people of `{second.account.name}`, so each overwrites the other's values",
            file=second.file,
            key=f"fields.{differing[0]}",
            fix="Map it the same way in both, or send it under another name in one of them",
        )

"""A project of its own in a folder: an audience of any size and shape in DuckDB, and one sync to the webhook.

Run as a process (`python -m benchmarks.world FOLDER --rows …`), so that the memory it takes is not the bench's. All
people are made up by arithmetic on their number; addresses are at example.com.

A *round* is what happens to the audience between two runs. Of n people, each round changes n/100, removes n/200 and
adds n/200, never the same ones twice.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import yaml

SYNC, AUDIENCE = "people", "aud_people"

COLUMNS = {
    "email": ("varchar", "'p' || i || '.' || (h % 99991) || '@example.com'"),
    "display_name": ("varchar", "'Person ' || (h // 3 % 1000003)"),
    "city": ("varchar", "'City ' || (h // 5 % 3001)"),
    "country": ("varchar", "['US', 'GB', 'DE', 'FR', 'CA'][h // 7 % 5 + 1]"),
    "tier": ("varchar", "['bronze', 'silver', 'gold'][h // 11 % 3 + 1]"),
    "score": ("integer", "cast(h // 13 % 101 + bump as integer)"),
    "orders": ("integer", "cast(h // 17 % 41 as integer)"),
    "revenue": ("decimal(12,2)", "cast(h // 19 % 10000019 as decimal(18, 0)) * 0.01::decimal(3, 2)"),
    "last_order_on": ("date", "date '2023-01-01' + cast(h // 23 % 1000 as integer)"),
    "updated_at": ("timestamp", "timestamp '2025-01-01' + to_seconds(h // 29 % 31536000)"),
}
"""The ten columns beside the key: name → type and how person number i has it. h is a hash of i, so that the values do
not compress better than real ones."""

KEYS = {
    "number": ("bigint", "i"),
    "text": ("varchar", "md5(i::varchar)"),
}
ORDERS = {"sorted": "i", "random": "h"}
CHANGED_EVERY, REMOVED_EVERY = 100, 200
MOST_ROUNDS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How an audience looks. `columns` counts those beside the key."""

    rows: int
    columns: int = 10
    key: str = "number"
    order: str = "sorted"

    @property
    def sent_a_round(self) -> dict[str, int]:
        """What one round changes, by operation."""
        return {
            "added": self.rows // REMOVED_EVERY,
            "changed": self.rows // CHANGED_EVERY,
            "removed": self.rows // REMOVED_EVERY,
        }

    def types(self) -> dict[str, str]:
        """Column → type, the key first."""
        plain = {name: kind for name, (kind, _) in COLUMNS.items()}
        return {"person_id": KEYS[self.key][0], **plain, **{name: kind for name, kind, _ in self._wide()}}

    def select(self, rounds: int) -> str:
        """The audience after so many rounds."""
        columns = [f"{KEYS[self.key][1]} as person_id"]
        columns += [f"cast({value} as {kind}) as {name}" for name, (kind, value) in COLUMNS.items()]
        columns += [f"{value} as {name}" for name, _, value in self._wide()]
        return f"select {', '.join(columns)} from ({self._people(rounds)}) as people order by {ORDERS[self.order]}"

    def _wide(self) -> list[tuple[str, str, str]]:
        """Columns eleven and up: every other one text."""
        return [
            (f"text_{n}", "varchar", f"'value ' || (h // {n} % 997)")
            if n % 2
            else (f"number_{n}", "integer", f"cast(h // {n} % 9973 as integer)")
            for n in range(11, self.columns + 1)
        ]

    def _people(self, rounds: int) -> str:
        """i, and how often the person has changed. The first n people change or leave, the later ones came."""
        steps = range(rounds)
        changed = " + ".join(
            f"(i < {self.rows} and i % {CHANGED_EVERY} = {10 + step})::int" for step in steps
        )
        removed = " or ".join(f"(i < {self.rows} and i % {REMOVED_EVERY} = {50 + step})" for step in steps)
        last = self.rows + rounds * (self.rows // REMOVED_EVERY)
        return f"select i, cast(hash(i) >> 2 as bigint) as h, {changed or '0'} as bump from range({last}) as numbers(i) where not ({removed or 'false'})"


def build(folder: Path, shape: Shape, *, rounds: int) -> None:
    """What dbt would do: the audience and its eligibility as tables."""
    (folder / "var").mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(folder / "var/warehouse.duckdb")) as db:
        db.execute("set preserve_insertion_order = true")
        for schema in ("audiences", "eligibility", "profiles"):
            db.execute(f"create schema if not exists {schema}")
        db.execute(f"create or replace table audiences.{AUDIENCE} as {shape.select(rounds)}")
        db.execute(
            "create or replace table eligibility.fct_eligibility as select person_id, 'email' as channel, "
            "'marketing' as purpose, true as is_eligible, false as is_deferred, null::varchar as first_blocker, '' as blockers, "
            f"null::varchar as consent_event_id, timestamp '2026-01-01' as evaluated_at from audiences.{AUDIENCE}"
        )
        db.execute(
            "create or replace table eligibility.dim_holdouts (holdout varchar, person_id varchar, is_held_out boolean, assigned_at timestamp)"
        )
        db.execute(
            f"create or replace view profiles.fct_profile_identifiers as select person_id, email as identifier from audiences.{AUDIENCE}"
        )


def write_project(
    folder: Path, shape: Shape, *, batch_rows: int, in_flight: int, memory_limit: str | None = None
) -> None:
    """The project's files; safe to repeat with other settings."""
    home = folder / "activations"
    (home / "syncs").mkdir(parents=True, exist_ok=True)
    _write(home / "project.yml", {"warehouse": {"memory_limit": memory_limit} if memory_limit else {}})
    account = {
        "kind": "webhook",
        "environment": "sandbox",
        "url": "https://hooks.example.com/activations",
        "signing_secret": "env:BENCH_NOT_SET",
        "batch_rows": batch_rows,
        "concurrency": in_flight,
    }
    _write(home / "destinations.yml", {"destinations": {"hook": account}})
    fields = [name for name in shape.types() if name not in ("person_id", "email")]
    sync = {
        "audience": AUDIENCE,
        "destination": "hook",
        "channel": "email",
        "purpose": "marketing",
        "mode": "mirror",
        "identifiers": {"email": "email"},
        "fields": {name: name for name in fields},
        "owner": "bench",
    }
    _write(home / "syncs" / f"{SYNC}.yml", sync)
    _write_manifest(folder, shape)


def _write(file: Path, document: object) -> None:
    file.write_text(yaml.safe_dump(document))


def _write_manifest(folder: Path, shape: Shape) -> None:
    """The part of dbt's manifest that the engine reads."""
    columns = {
        name: {
            "name": name,
            "data_type": kind,
            "config": {"meta": {"pii": "email"} if name == "email" else {}},
        }
        for name, kind in shape.types().items()
    }
    meta = {"primary_key": ["person_id"], "purpose": "marketing", "channels": ["email"]}
    nodes = [
        _node(AUDIENCE, "audiences", "public", columns, {"contract": {"enforced": True}, "meta": meta}),
        _node("fct_eligibility", "eligibility", "private", {}, {}),
        _node("dim_holdouts", "eligibility", "private", {}, {}),
        _node("fct_profile_identifiers", "profiles", "private", {}, {}),
    ]
    target = folder / "dbt/target"
    target.mkdir(parents=True, exist_ok=True)
    (target / "manifest.json").write_text(json.dumps({"nodes": {n["unique_id"]: n for n in nodes}}))


def _node(name: str, schema: str, access: str, columns: object, config: object) -> dict[str, object]:
    return {
        "resource_type": "model",
        "unique_id": f"model.bench.{name}",
        "name": name,
        "alias": name,
        "schema": schema,
        "access": access,
        "columns": columns,
        "config": config,
        "description": "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--key", choices=KEYS, default="number")
    parser.add_argument("--order", choices=ORDERS, default="sorted")
    parser.add_argument("--rounds", type=int, choices=range(MOST_ROUNDS + 1), default=0)
    given = parser.parse_args()
    shape = Shape(rows=given.rows, columns=given.columns, key=given.key, order=given.order)
    build(given.folder, shape, rounds=given.rounds)


if __name__ == "__main__":
    main()

"""Two hosts with one project: each has its own state folder, and they share a journal on Postgres."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from activations.errors import ActivationsError, SecretError, SyncBusy
from activations.journal.postgres import PostgresStore
from activations.runner import Engine
from tests.engine.conftest import forget_environment
from tests.engine.world import Killed, World, killed_after
from tests.warehouses.server import Server
from tests.warehouses.stores import postgres_stores

pytestmark = pytest.mark.postgres


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Iterator[World]:
    forget_environment(monkeypatch)
    with postgres_stores(server) as new_store:
        yield World(tmp_path, new_store=new_store)


def configure(world: World, **settings: Any) -> None:
    file = world.root / "activations/project.yml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))


def second_host(world: World, monkeypatch: pytest.MonkeyPatch, *, same_key: bool = True) -> Engine:
    """From here on the project is read on a host whose state folder is another."""
    var = world.root / "var-of-the-second"
    var.mkdir()
    if same_key:
        shutil.copy(world.root / "var/hash.key", var)
    monkeypatch.setenv("ACTIVATIONS_VAR", str(var))
    return world.engine()


def die_in_flight(world: World) -> None:
    """The lease stays, as after the death of a host."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PostgresStore, "held", _never_given_back)
        world.other.script.append(killed_after)
        with pytest.raises(Killed):
            world.run()


@contextmanager
def _never_given_back(store: PostgresStore, sync: str, owner: str) -> Iterator[int]:
    yield store._take(sync, owner)


def time_passes(world: World) -> None:
    world.store.execute_in_journal("update lease set until = until - interval '30 seconds'")


def test_the_second_host_takes_over_and_nobody_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(world, plan={"folder": str(world.root / "shared")})
    world.add("a", "b")
    die_in_flight(world)
    world.drop("a").build()
    host = second_host(world, monkeypatch)
    with pytest.raises(SyncBusy, match=r"should it have died, the sync is free soon after"):
        host.sync("people")
    time_passes(world)
    host.sync("people")
    assert world.other.emails == {"b@example.com"}
    assert not list((world.root / "shared").iterdir())


def test_without_the_plan_of_the_dead_host_nobody_guesses(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add("a", "b")
    die_in_flight(world)
    [(owner,)] = world.store.query("select owner from activations_journal.run")
    time_passes(world)
    with pytest.raises(
        ActivationsError, match=f"being sent by {owner} when that died.* share `plan: folder`"
    ):
        second_host(world, monkeypatch).sync("people")
    assert len(world.other.received) == 2


def test_a_host_with_another_hashing_key_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SecretError, match="hosts that share a journal need the same"):
        second_host(world, monkeypatch, same_key=False).status()


@pytest.mark.parametrize("password", ["a@hunter2", "a@hunter2:b", "a@hunter2/b", "1/hunter2"])
def test_a_password_that_the_address_cuts_in_two_is_refused_with_the_fix_and_not_repeated(
    password: str,
) -> None:
    """What follows the cut would be a host, which is looked up and named."""
    with pytest.raises(ActivationsError, match="write @ in a password as %40, / as %2F") as caught:
        PostgresStore(f"postgresql://ops:{password}@nowhere.invalid/x", schema="journal")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_message_of_a_dead_host_is_never_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    forget_environment(monkeypatch)
    with postgres_stores(server) as new_store:
        world = World(tmp_path, mode="append", new_store=new_store)
        configure(world, plan={"folder": str(world.root / "shared")})
        world.add("a")
        die_in_flight(world)
        time_passes(world)
        run = second_host(world, monkeypatch).sync("people")
    assert dict(run.counts.waiting_by_reason) == {"in_doubt": 1}
    assert len(world.other.received) == 1

"""A message in doubt whose provider says that it took it: over HTTP, with the stand-in's own signed callbacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from activations.errors import ActivationsError
from activations.feedback import Feedback, read_callbacks
from activations.model import Callback
from activations.runner import Engine, load_project
from activations.sandbox.server import RunningSandbox, start_in_background
from tests.engine.world import Killed, World

PHONE = {"a": "+12125550101", "b": "+12125550102"}
TEXTS: dict[str, Any] = {
    "account": {
        "kind": "twilio",
        "environment": "sandbox",
        "account_sid": "env:NOT_SET",
        "auth_token": "env:NOT_SET",
        "status_callback": "https://hooks.example.com/twilio",
        "concurrency": 1,
    },
    "channel": "sms",
    "identifiers": {"phone": "email"},
    "fields": {},
    "target": {"from_number": "+12125550100", "body": "Hi. Reply STOP to opt out."},
}
"""A sync of messages to one account."""


class Texts:
    """A sync of texts to the sandbox."""

    def __init__(self, world: World, sandbox: RunningSandbox) -> None:
        self.world, self.sandbox = world, sandbox
        for person, phone in PHONE.items():
            world.add(person, email=phone)
        world.build()

    def engine(self) -> Engine:
        return Engine(load_project(self.world.root), clock=self.world.clock)

    def run(self, fault: str = "", **settings: object) -> tuple[int, int]:
        """How many messages were delivered and are in doubt."""
        if fault:
            self.sandbox.arm(fault, vendor="twilio", next_n=1, method="POST", **settings)
        run = self.engine().sync("people")
        return run.delivered, run.in_doubt

    def callbacks(self) -> list[Callback]:
        return list(read_callbacks(map(json.dumps, self.sandbox.sandbox.twilio.callbacks())))

    def feedback(self, *callbacks: Callback) -> Feedback:
        return self.engine().feedback("hook", callbacks or self.callbacks())

    @property
    def received(self) -> list[str]:
        return sorted(phone for phone, _ in self.sandbox.sandbox.twilio.messages())


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_in_background(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture
def texts(
    make_world: Callable[..., World], sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> Texts:
    world = make_world(mode="append", **TEXTS)
    sandbox.sandbox.state.forget()
    monkeypatch.setenv("ACTIVATIONS_SANDBOX_URL", sandbox.url)
    return Texts(world, sandbox)


def test_what_the_provider_says_it_took_is_sent_and_never_sent_again(texts: Texts) -> None:
    assert texts.run("reset_after") == (1, 1)
    assert texts.feedback() == Feedback(callbacks=2, ignored=0, confirmed=1)
    assert texts.engine().in_doubt("people") == []
    assert texts.run() == (1, 0), "the ledger hears of it, and no request leaves"
    assert texts.run() == (0, 0)
    assert texts.received == sorted(PHONE.values())
    outcomes = texts.world.query(
        "select outcome, reason from activation.sync_changelog order by seq, position"
    )
    assert sorted(outcomes, key=str) == [
        ("delivered", "sent_before"),
        ("delivered", None),
        ("unknown", "connection_lost"),
    ]


def test_what_the_provider_did_not_take_stays_in_doubt(texts: Texts) -> None:
    """Silence is no evidence."""
    assert texts.run("500_before") == (1, 1)
    assert texts.feedback() == Feedback(callbacks=1, ignored=0, confirmed=0)
    assert len(texts.engine().in_doubt("people")) == 1


def test_the_same_callbacks_twice_change_nothing(texts: Texts) -> None:
    texts.run("reset_after")
    texts.feedback()
    assert texts.feedback().confirmed == 0
    assert texts.engine().verify_audit() == 1


def test_a_forged_callback_settles_nothing(texts: Texts) -> None:
    texts.run("reset_after")
    forged = [replace(c, headers={"x-twilio-signature": "Zm9yZ2Vk"}) for c in texts.callbacks()]
    assert texts.feedback(*forged) == Feedback(callbacks=2, ignored=2, confirmed=0)


def test_a_late_callback_about_the_first_attempt_says_nothing_about_the_second(texts: Texts) -> None:
    texts.run("reset_after")
    [first] = texts.engine().in_doubt("people")
    early = texts.callbacks()
    texts.engine().resend("people", first.handle, by="ann", second="bob", note="never arrived, they say")
    texts.run("500_before")
    assert texts.feedback(*early).confirmed == 0
    assert len(texts.engine().in_doubt("people")) == 1


def test_a_message_whose_engine_died_is_confirmed_too(texts: Texts, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("activations.journal.Journal.record", die)
        with pytest.raises(Killed):
            texts.run()
    assert texts.feedback().confirmed == 1
    assert texts.run() == (2, 0)
    assert texts.received == sorted(PHONE.values())


def test_the_ids_are_kept_and_the_numbers_are_not(texts: Texts) -> None:
    texts.run("reset_after")
    texts.feedback()
    with texts.engine().journal() as journal:
        messages = journal._store.rows("select * from message")
        [audited] = journal._store.rows("select event from audit")
    assert sum("SM" in str(message) for message in messages) == 2
    assert '"event": "message_confirmed"' in str(audited) and '"provider_id": "SM' in str(audited)
    assert not any(phone in str((messages, audited)) for phone in PHONE.values())


def test_who_confirms_nothing_is_named(world: World) -> None:
    with pytest.raises(ActivationsError, match="`hook` confirms no messages"):
        world.engine().feedback("hook", [])
    with pytest.raises(ActivationsError, match="no sync sends to `nobody`"):
        world.engine().feedback("nobody", [])


@pytest.mark.parametrize("line", ["[]", "{", '{"url": 1}', '{"url": "u", "headers": [], "body": ""}'])
def test_a_line_that_is_no_callback_is_named_by_its_number(line: str) -> None:
    with pytest.raises(ActivationsError, match="line 3 is no callback"):
        list(read_callbacks(["\n", json.dumps({"url": "u", "headers": {}, "body": ""}), line]))

"""The sandbox itself: it keeps what it was sent, fails on demand, and shows no personal data."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from standardwebhooks.webhooks import Webhook

from activations.destinations.registry import KINDS
from activations.errors import ActivationsError, ConfigError
from activations.sandbox.credentials import base_url_for, credentials_for
from activations.sandbox.faults import Fault, FaultDial
from activations.sandbox.masking import mask_digest, mask_email, mask_phone
from activations.sandbox.server import RunningSandbox, register_targets, serve, start_in_background
from activations.sandbox.state import Place

PLACES = [
    Place(kind="klaviyo", target={"list_id": "LIST01"}, name="loyal"),
    Place(kind="meta_custom_audience", target={"audience_id": "1202"}, name="win_back"),
    Place(kind="twilio", target={"body": "x"}, name="baskets"),
]
SID = credentials_for("twilio")["account_sid"]
CANARY = ("canary.person@example.com", "+12125550142", "Canaria")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    with start_in_background(tmp_path_factory.mktemp("sandbox"), places=PLACES, job_seconds=0.05) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: RunningSandbox) -> RunningSandbox:
    running.sandbox.dial.clear()
    running.sandbox.state.forget()
    return running


def send_text(
    url: str, to: str = "+12125550123", body: str = "Hi. Reply STOP", **more: str
) -> requests.Response:
    return requests.post(
        f"{url}/twilio/2010-04-01/Accounts/{SID}/Messages.json",
        data={"To": to, "From": "+12125550100", "Body": body, **more},
        auth=(SID, credentials_for("twilio")["auth_token"]),
        timeout=5,
    )


def import_people(
    url: str, *people: dict[str, Any], list_id: str = "LIST01", **headers: str
) -> requests.Response:
    profiles = [{"type": "profile", "attributes": person} for person in people]
    lists = {"lists": {"data": [{"type": "list", "id": list_id}]}}
    data = {
        "type": "profile-bulk-import-job",
        "attributes": {"profiles": {"data": profiles}},
        "relationships": lists,
    }
    key = f"Klaviyo-API-Key {credentials_for('klaviyo')['api_key']}"
    default = {"Authorization": key, "revision": "2026-07-15"}
    path = f"{url}/klaviyo/api/profile-bulk-import-jobs"
    return requests.post(path, json={"data": data}, headers={**default, **headers}, timeout=5)


def test_credentials_are_those_a_destination_asks_for() -> None:
    for kind, cls in KINDS.items():
        options = {**credentials_for(kind), "base_url": base_url_for(kind, "http://127.0.0.1:8765")}
        extra = {"url": "https://hooks.example.com/a"} if kind == "webhook" else {}
        assert cls.Config(**options, **extra).base_url.startswith("http://127.0.0.1:8765/")


def test_a_second_start_meets_the_same_other_side(tmp_path: Path) -> None:
    with start_in_background(tmp_path, places=PLACES) as first:
        import_people(first.url, {"email": "a@example.com"})
        send_text(first.url)
    register_targets(tmp_path, [Place(kind="klaviyo", target={"list_id": "LIST02"}, name="new")])
    with start_in_background(tmp_path) as second:
        state = requests.get(f"{second.url}/_state", timeout=5).json()
    assert {k: v["members"] for k, v in state["klaviyo"]["lists"].items()} == {"LIST01": 1, "LIST02": 0}
    assert state["twilio"]["messages"] == 1
    assert state["meta"]["audiences"] == {"1202": {"name": "win_back", "members": 0}}


def test_a_job_is_queued_then_processing_then_complete(tmp_path: Path) -> None:
    with start_in_background(tmp_path, places=PLACES, job_seconds=0.3) as sandbox:
        created = import_people(sandbox.url, {"email": "a@example.com"})
        url = f"{sandbox.url}/klaviyo/api/profile-bulk-import-jobs/{created.json()['data']['id']}"
        states, deadline = ["queued"], time.monotonic() + 5
        while states[-1] != "complete" and time.monotonic() < deadline:
            answer = requests.get(url, headers=dict(created.request.headers), timeout=5)
            states.append(answer.json()["data"]["attributes"]["status"])
    assert created.status_code == 202
    assert list(dict.fromkeys(states)) == ["queued", "processing", "complete"]


def test_the_vendors_own_refusals(sandbox: RunningSandbox) -> None:
    person = {"email": "a@example.com"}
    assert import_people(sandbox.url, person, Authorization="Bearer x").status_code == 401
    assert import_people(sandbox.url, person, revision="").status_code == 400
    assert import_people(sandbox.url, person, list_id="NOLIST").status_code == 404
    assert import_people(sandbox.url).status_code == 400
    assert send_text(sandbox.url, to="12125550123").json()["code"] == 21211
    assert send_text(sandbox.url, body="x" * 1_601).json()["code"] == 21617
    assert requests.post(f"{sandbox.url}/webhook", json={"changes": []}, timeout=5).status_code == 401
    token = {"Authorization": f"Bearer {credentials_for('meta_custom_audience')['access_token']}"}
    users = {"payload": {"schema": ["EMAIL"], "data": [["plain@example.com"]]}, "session": {"session_id": 1}}
    answer = requests.post(f"{sandbox.url}/meta/v25.0/1202/users", json=users, headers=token, timeout=5)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 100)


def test_faults_act_as_often_as_asked_and_only_where_asked(sandbox: RunningSandbox) -> None:
    fault = {"vendor": "twilio", "kind": "429", "next_n": 2, "retry_after": 7}
    assert requests.post(f"{sandbox.url}/_faults", json=fault, timeout=5).status_code == 201
    assert import_people(sandbox.url, {"email": "a@example.com"}).status_code == 202
    answers = [send_text(sandbox.url) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 201]
    assert answers[0].headers["Retry-After"] == "7"
    assert requests.get(f"{sandbox.url}/_faults", timeout=5).json() == []


@pytest.mark.parametrize(
    ("kind", "done"),
    [("500_before", 0), ("500_after", 1), ("reset_after", 1), ("malformed", 1), ("timeout_after", 1)],
)
def test_before_and_after_mean_what_they_say(kind: str, done: int, sandbox: RunningSandbox) -> None:
    sandbox.arm(kind, vendor="twilio", seconds=0.1)
    if kind in ("reset_after", "timeout_after"):
        with pytest.raises(requests.ConnectionError):
            send_text(sandbox.url)
    else:
        answer = send_text(sandbox.url)
        assert answer.status_code == (201 if kind == "malformed" else 500)
        assert _is_json(answer) == (kind != "malformed")
    assert len(sandbox.sandbox.twilio.messages()) == done
    assert send_text(sandbox.url).status_code == 201


def _is_json(answer: requests.Response) -> bool:
    try:
        answer.json()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "418"},
        {"kind": "429", "vendor": "nobody"},
        {"kind": "429", "typo": 1},
        {"kind": "429", "probability": 2},
        {"kind": "429", "probability": 0},
        {"kind": ["429"]},
        {"kind": "429", "next_n": 0},
        {"kind": "429", "next_n": "many"},
        {"kind": "timeout_after", "seconds": -1},
    ],
)
def test_a_fault_that_cannot_be_is_refused(wrong: dict[str, Any], sandbox: RunningSandbox) -> None:
    assert requests.post(f"{sandbox.url}/_faults", json=wrong, timeout=5).status_code == 400
    assert sandbox.sandbox.dial.armed() == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", 'this is no JSON object. Send one like {"vendor"'),
        ("[1]", "this is no JSON object"),
        ("vendor=nobody&kind=429", "Use one of: *, klaviyo, meta, twilio, webhook"),
        ('{"kind": "418"}', "there is no kind '418'. Use one of: 429, 500_before"),
        ('{"kind": "429", "seconds": "NaN"}', "seconds is a number from 0 to 3,600, not 'NaN'"),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_the_dial_says_what_it_understands(
    body: str, why: str, content_type: str, sandbox: RunningSandbox
) -> None:
    """With curl as it is, which calls everything a form, and told that it is JSON."""
    if body.startswith("vendor") and content_type == "application/json":
        why = "this is no JSON object"
    answer = requests.post(
        f"{sandbox.url}/_faults", data=body, headers={"Content-Type": content_type}, timeout=5
    )
    assert (answer.status_code, why in answer.json()["error"]) == (400, True)


def test_a_state_that_cannot_be_written_is_a_server_error_and_nothing_is_done(
    sandbox: RunningSandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    state = sandbox.sandbox.state
    state._db.execute("pragma query_only = on")
    try:
        answer = send_text(sandbox.url)
    finally:
        state._db.execute("pragma query_only = off")
    assert (answer.status_code, sandbox.sandbox.twilio.messages()) == (500, [])
    assert "the sandbox cannot remember" in answer.text
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_not_announced(sandbox: RunningSandbox, tmp_path: Path) -> None:
    port, announced = int(sandbox.url.rpartition(":")[2]), list[str]()
    with pytest.raises(ActivationsError, match=f"port {port} .*--port"):
        serve(tmp_path, port=port, announce=announced.append)
    assert announced == []


def test_a_share_of_requests_fails_and_the_seed_repeats_it() -> None:
    def drawn() -> list[bool]:
        dial = FaultDial(seed=7)
        dial.arm(Fault.parse({"kind": "429", "probability": 0.25}, frozenset()))
        return [dial.draw("twilio", "POST", "/") is not None for _ in range(400)]

    assert drawn() == drawn()
    assert 70 <= sum(drawn()) <= 130


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.example.com"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_another_site_cannot_turn_the_dial(headers: dict[str, str], sandbox: RunningSandbox) -> None:
    answer = requests.post(f"{sandbox.url}/_faults", json={"kind": "429"}, headers=headers, timeout=5)
    assert answer.status_code == 403
    assert sandbox.sandbox.dial.armed() == []


def test_the_form_on_the_page_turns_the_dial(sandbox: RunningSandbox) -> None:
    form = {"vendor": "*", "kind": "429", "next_n": "3"}
    own = {"Origin": sandbox.url}
    answer = requests.post(f"{sandbox.url}/_faults", data=form, headers=own, timeout=5, allow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/#faults")
    assert "next 3" in requests.get(sandbox.url, timeout=5).text
    requests.post(f"{sandbox.url}/_faults", data={"clear": "all"}, headers=own, timeout=5)
    assert sandbox.sandbox.dial.armed() == []


def test_a_foreign_host_name_is_refused(sandbox: RunningSandbox) -> None:
    answer = requests.get(sandbox.url, headers={"Host": "rebound.example.com"}, timeout=5)
    assert answer.status_code == 400


def test_only_the_loopback_interface(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this machine only"):
        serve(tmp_path, host="0.0.0.0")


def test_page_and_state_show_no_person(sandbox: RunningSandbox) -> None:
    email, phone, name = CANARY
    import_people(sandbox.url, {"email": email, "phone_number": phone, "first_name": name})
    send_text(sandbox.url, to=phone)
    _deliver_webhook(sandbox, email, name)
    page, state = requests.get(sandbox.url, timeout=5), requests.get(f"{sandbox.url}/_state", timeout=5)
    for text in (page.text, state.text):
        assert not [value for value in (email, phone, name) if value in text]
    assert "c***@e***.com" in page.text
    assert "••42" in page.text
    log = sandbox.sandbox.state.rows("select path from requests")
    assert not [row for row in log if "@" in row["path"]]


def test_callbacks_are_there_to_be_read_and_show_no_person(sandbox: RunningSandbox) -> None:
    address = "https://hooks.example.com/twilio?message=1&run=2"
    send_text(sandbox.url, to=CANARY[1], StatusCallback=address)
    send_text(sandbox.url, to=CANARY[1])
    [line] = requests.get(f"{sandbox.url}/_callbacks", timeout=5).text.splitlines()
    assert json.loads(line)["url"] == address
    assert not [value for value in CANARY if value.removeprefix("+") in line]


def _deliver_webhook(sandbox: RunningSandbox, email: str, name: str) -> None:
    change = {
        "operation": "added",
        "key": "k1",
        "identifiers": {"email": email},
        "fields": {"first_name": name},
    }
    body, now = json.dumps({"sync": "coupons", "changes": [change]}), datetime.now(UTC)
    signature = Webhook(credentials_for("webhook")["signing_secret"]).sign("id1", now, body)
    headers = {
        "webhook-id": "id1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
    assert requests.post(f"{sandbox.url}/webhook", data=body, headers=headers, timeout=5).json() == {
        "results": [{"key": "k1", "status": "ok"}]
    }


def test_markup_in_a_text_stays_text(sandbox: RunningSandbox) -> None:
    send_text(sandbox.url, body="<script>alert(1)</script> Reply STOP")
    page = requests.get(sandbox.url, timeout=5)
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy


def test_the_page_needs_nothing_from_elsewhere(sandbox: RunningSandbox) -> None:
    page = requests.get(sandbox.url, timeout=5).text
    style = requests.get(f"{sandbox.url}/_style.css", timeout=5)
    assert style.headers["content-type"].startswith("text/css")
    for text in (page, style.text):
        assert "http" not in text.replace("http-equiv", "")
    assert 'style="' not in page


def test_it_is_fast_enough_and_loses_nothing_under_several_senders(sandbox: RunningSandbox) -> None:
    started = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: send_text(sandbox.url, to=f"+1212556{n:04d}").status_code, range(160))
        )
    assert set(answers) == {201}
    assert len(set(sandbox.sandbox.twilio.messages())) == 160
    # Every call above opens a connection of its own; even so this takes about half a second.
    assert time.perf_counter() - started < 5


def test_state_lies_in_one_private_folder(tmp_path: Path) -> None:
    with start_in_background(tmp_path / "sandbox") as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
    assert (tmp_path / "sandbox").stat().st_mode & 0o077 == 0
    with sqlite3.connect(tmp_path / "sandbox" / "state.sqlite3") as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("masked", "expected"),
    [
        (mask_email("jane.roe@example.com"), "j***@e***.com"),
        (mask_email("nonsense"), "***"),
        (mask_email("@x.y"), "***"),
        (mask_phone("+12125550123"), "+1 ••• ••• ••23"),
        (mask_phone("+436605550123"), "+43 ••• ••• ••23"),
        (mask_phone("+37265550123"), "+372 ••• ••• ••23"),
        (mask_phone("not a phone"), "•••"),
        (mask_phone("123"), "•••"),
        (mask_digest("0123456789abcdef"), "01234567…"),
    ],
)
def test_masks(masked: str, expected: str) -> None:
    assert masked == expected


def test_the_webhook_secret_is_long_enough_for_the_standard() -> None:
    secret = credentials_for("webhook")["signing_secret"].removeprefix("whsec_")
    assert 24 <= len(base64.b64decode(secret)) <= 64

"""Schedule and sensors, tick by tick."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from activations.runner import load_project
from dagster_project.defs import alerts
from dagster_project.defs.alerts import ALERTS, WEBHOOK, alert_on_failure, alert_on_warnings
from dagster_project.defs.schedules import daily
from dagster_project.defs.sensors import SourceTable, raw_data_sensor, source_tables
from dagster_project.resources import Warehouse
from tests.engine.conftest import forget_environment
from tests.engine.world import World
from tests.transport.servers import OK, Server, answer, authority, running

CONSENT = SourceTable(schema="raw", name="consent_events", loaded_at="recorded_at")
CONTACTS = SourceTable(schema="raw", name="crm_contacts", loaded_at=None)
TABLES = [CONSENT, CONTACTS]

Tick = Callable[[], dg.SensorResult | dg.SkipReason]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "warehouse.duckdb"
    execute(file, "create schema raw")
    execute(
        file, "create table raw.consent_events as select 1 as event_id, timestamp '2017-01-01' as recorded_at"
    )
    return file


def execute(file: Path, statement: str) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute(statement)


class Ticking:
    """A sensor and the cursor that Dagster would keep between its ticks."""

    def __init__(self, file: Path) -> None:
        self.sensor, self.warehouse, self.cursor = raw_data_sensor(TABLES), Warehouse(path=str(file)), None

    def __call__(self):
        context = dg.build_sensor_context(cursor=self.cursor, resources={"warehouse": self.warehouse})
        data = self.sensor.evaluate_tick(context)
        self.cursor = data.cursor or self.cursor
        return data


def test_the_schedule_asks_for_the_whole_pipeline_once_a_day() -> None:
    at = datetime(2026, 1, 2, 6, tzinfo=UTC)
    data = daily.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=at))
    assert len(data.run_requests) == 1
    assert daily.job_name == "pipeline"
    assert daily.execution_timezone == "UTC"


def test_nothing_that_sends_is_on_by_itself(defs: dg.Definitions) -> None:
    """Alerts may run; whatever starts a run waits for a person to switch it on."""
    repository = defs.get_repository_def()
    assert daily.default_status is dg.DefaultScheduleStatus.STOPPED
    running = {s.name for s in repository.sensor_defs if s.default_status is dg.DefaultSensorStatus.RUNNING}
    assert running == {sensor.name for sensor in ALERTS}


def test_the_first_look_only_remembers(path: Path) -> None:
    data = Ticking(path)()
    assert not data.run_requests
    assert "First look" in data.skip_message


def test_no_new_rows_start_nothing(path: Path) -> None:
    tick = Ticking(path)
    tick()
    data = tick()
    assert not data.run_requests
    assert "No new rows" in data.skip_message


@pytest.mark.parametrize(
    "change",
    [
        "insert into raw.consent_events values (2, timestamp '2016-01-01')",
        "update raw.consent_events set recorded_at = timestamp '2017-01-02'",
        "create table raw.crm_contacts as select 'c1' as contact_id",
        "drop table raw.consent_events",
    ],
    ids=["a late row", "a newer row", "a new table", "a lost table"],
)
def test_changed_raw_data_request_one_refresh(path: Path, change: str) -> None:
    tick = Ticking(path)
    tick()
    execute(path, change)
    assert len(tick().run_requests) == 1
    assert not tick().run_requests, "one change, one run"
    assert tick.sensor.job_name == "refresh"


def test_the_run_key_is_stable_until_the_cursor_moves(path: Path) -> None:
    """A tick that Dagster has to repeat must not start a second run."""
    tick = Ticking(path)
    tick()
    before = tick.cursor
    execute(path, "insert into raw.consent_events values (2, timestamp '2017-01-02')")
    first = tick().run_requests[0].run_key
    tick.cursor = before
    assert tick().run_requests[0].run_key == first


def test_data_that_return_to_an_earlier_state_are_a_change_again(path: Path) -> None:
    tick = Ticking(path)
    tick()
    keys = set()
    for statement in (
        "insert into raw.consent_events values (2, null)",
        "delete from raw.consent_events where event_id = 2",
    ) * 2:
        execute(path, statement)
        keys.add(tick().run_requests[0].run_key)
    assert len(keys) == 4


@contextmanager
def held_by_another_process(file: Path):
    program = (
        "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout and process.stdout.readline()
        yield
    finally:
        process.communicate()


def test_a_locked_warehouse_skips_the_tick_and_forgets_nothing(path: Path) -> None:
    tick = Ticking(path)
    tick()
    before = tick.cursor
    with held_by_another_process(path):
        data = tick()
    assert not data.run_requests
    assert "in use" in data.skip_message
    assert tick.cursor == before


def test_a_warehouse_held_by_this_process_skips_the_tick(path: Path) -> None:
    tick = Ticking(path)
    with duckdb.connect(str(path)):
        assert "in use" in tick().skip_message


def test_no_warehouse_yet_skips_the_tick(tmp_path: Path) -> None:
    data = Ticking(tmp_path / "none.duckdb")()
    assert "no warehouse yet" in data.skip_message
    assert not (tmp_path / "none.duckdb").exists()


def test_the_sensor_watches_raw_sources_and_not_our_own_ledger(project) -> None:
    import json

    tables = source_tables(json.loads(project.manifest_path.read_text()))
    assert {"consent_events", "crm_contacts"} <= {table.name for table in tables}
    assert "activation" not in {table.schema for table in tables}
    assert next(table for table in tables if table.name == "consent_events").loaded_at == "recorded_at"


# --- alerts ----------------------------------------------------------------------------------------------------


@dg.asset
def secretive() -> None:
    raise ValueError("could not convert 'jane@example.com'")


@dg.asset(check_specs=[dg.AssetCheckSpec("few_rejected", asset="delivered")])
def delivered():
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(passed=False, check_name="few_rejected", severity=dg.AssetCheckSeverity.WARN)


def run_context(asset: dg.AssetsDefinition, instance: dg.DagsterInstance):
    result = dg.materialize([asset], instance=instance, raise_on_error=False)
    wanted = dg.DagsterEventType.RUN_SUCCESS if result.success else dg.DagsterEventType.RUN_FAILURE
    (event,) = [event for event in result.all_events if event.event_type is wanted]
    context = dg.build_run_status_sensor_context(
        sensor_name="alert", dagster_instance=instance, dagster_run=result.dagster_run, dagster_event=event
    )
    return context if result.success else context.for_run_failure()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A webhook inside one's own network, which the project allows."""
    forget_environment(monkeypatch)
    own = authority(tmp_path, "localhost")
    egress = {"allow_private": ["127.0.0.0/8", "::1/128"], "ca_bundle": own.ca.name}
    world = World(tmp_path)
    (tmp_path / "activations/project.yml").write_text(yaml.safe_dump({"egress": egress}))
    monkeypatch.setattr(alerts, "project", lambda: load_project(world.root))
    with running(answer(OK), tls=own.server) as server:
        monkeypatch.setenv(WEBHOOK, f"https://localhost:{server.port}/token")
        yield server


@pytest.fixture
def posted(hook: Server) -> Callable[[], str]:
    """The one text that arrived."""

    def text() -> str:
        (request,) = hook.received
        return str(json.loads(request.partition(b"\r\n\r\n")[2])["text"])

    return text


def test_a_failed_run_is_told_without_the_text_of_its_error(instance, posted) -> None:
    alert_on_failure(run_context(secretive, instance))
    assert "FAILED" in posted() and "secretive" in posted()
    assert "example.com" not in posted()


def test_a_warning_names_the_check(instance, posted) -> None:
    alert_on_warnings(run_context(delivered, instance))
    assert "delivered:few_rejected" in posted()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://localhost:9/token", "localhost leads to"),
        ("https://169.254.169.254/token", "is a metadata address"),
        ("http://hooks.example.com/token", "is not an https address"),
    ],
)
def test_an_address_that_may_not_be_called_is_logged_and_fails_no_tick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str, reason: str
) -> None:
    monkeypatch.setenv(WEBHOOK, address)
    alerts.send(logging.getLogger("ticks"), "FAILED something")
    assert reason in caplog.text and WEBHOOK in caplog.text
    assert "token" not in caplog.text, "the path of such an address is a password"


def test_a_webhook_that_refuses_is_logged_and_fails_no_tick(
    hook: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(WEBHOOK, f"https://localhost:{hook.port + 1}/token")
    alerts.send(logging.getLogger("ticks"), "FAILED something")
    assert "cannot_connect" in caplog.text and "token" not in caplog.text

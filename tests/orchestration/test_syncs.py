"""A sync asset shows counts, never looks greener than its run, and follows its audience."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from activations.config import Project, Sync
from activations.errors import WarehouseLocked
from activations.model import Counts, RunStatus, SyncRun
from dagster_project.defs.syncs import (
    COUNTS_ADD_UP,
    FEW_REJECTED,
    NOTHING_IN_DOUBT,
    adds_up,
    audience_key,
    run_metadata,
    sync_asset,
    sync_key,
)
from tests.orchestration.engine import a_run, engine_that_returns


def materialize(project: Project, sync: Sync, run: SyncRun | Exception) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [sync_asset(sync, project)],
        resources={"activations": engine_that_returns(run)},
        raise_on_error=False,
    )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult) -> dg.StepFailureData | Any:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.user_failure_data


def test_a_run_becomes_numbers(project: Project, a_sync: Sync) -> None:
    result = materialize(project, a_sync, a_run(a_sync))
    (event,) = result.get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert result.success
    assert metadata["delivered"].value == 40
    assert metadata["ineligible/consent"].value == 7
    assert metadata["seconds/deliver"].value == 1.5
    assert metadata["run_id"].value == "run-1"
    assert metadata["plan_id"].value == "plan-1"


def test_every_count_of_the_summary_is_shown(a_sync: Sync) -> None:
    run = a_run(a_sync)
    counts = {name for name, value in run.summary().items() if isinstance(value, int)}
    assert counts
    assert counts <= set(run_metadata(run))


@pytest.mark.parametrize("status", [RunStatus.HELD, RunStatus.FAILED, RunStatus.INTERRUPTED])
def test_a_run_that_did_not_go_through_is_not_materialized(
    project: Project, a_sync: Sync, status: RunStatus
) -> None:
    run = a_run(a_sync, run_status=status, delivered=0, held_reason="removes 90 % of what is there")
    result = materialize(project, a_sync, run)
    assert not result.success
    assert not result.get_asset_materialization_events()


def test_a_held_run_says_why_and_how_to_release_it(project: Project, a_sync: Sync) -> None:
    run = a_run(a_sync, run_status=RunStatus.HELD, delivered=0, held_reason="removes 90 % of what is there")
    told = failure(materialize(project, a_sync, run))
    assert "removes 90 % of what is there" in told.description
    assert "activations release" in told.description
    assert told.metadata["added"].value == 40


def test_our_own_errors_are_one_line_without_a_traceback(project: Project, a_sync: Sync) -> None:
    told = failure(materialize(project, a_sync, WarehouseLocked("another process holds it. Wait for it")))
    assert told.description == f"{a_sync.name}: another process holds it. Wait for it"


def test_a_partial_run_is_materialized_with_a_warning(project: Project, a_sync: Sync) -> None:
    run = a_run(a_sync, run_status=RunStatus.PARTIAL, delivered=30, rejected=9, in_doubt=1)
    result = materialize(project, a_sync, run)
    assert result.success
    assert len(result.get_asset_materialization_events()) == 1
    assert checks(result) == {COUNTS_ADD_UP: True, FEW_REJECTED: False, NOTHING_IN_DOUBT: False}


def test_a_row_without_an_outcome_fails_the_check(project: Project, a_sync: Sync) -> None:
    result = materialize(project, a_sync, a_run(a_sync, delivered=39))
    assert checks(result)[COUNTS_ADD_UP] is False


def test_an_audience_that_is_not_the_sum_of_its_parts_does_not_add_up(a_sync: Sync) -> None:
    assert adds_up(a_run(a_sync))
    assert not adds_up(a_run(a_sync, counts=Counts(audience_size=51, ineligible=10, added=40)))


# --- automation ------------------------------------------------------------------------------------------------


def world(project: Project, sync: Sync, *, healthy: bool = True) -> dg.Definitions:
    """The sync below a stand-in of its audience, with one blocking check between them."""

    @dg.asset(key=audience_key(sync))
    def audience() -> None: ...

    @dg.asset_check(asset=audience_key(sync), blocking=True)
    def expectations() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=healthy)

    return dg.Definitions(
        assets=[audience, sync_asset(sync, project)],
        asset_checks=[expectations],
        resources={"activations": engine_that_returns(a_run(sync))},
        jobs=[
            dg.define_asset_job("everything", executor_def=dg.in_process_executor),
            dg.define_asset_job("only_audience", dg.AssetSelection.assets(audience_key(sync))),
        ],
    )


def run(defs: dg.Definitions, job: str, instance: dg.DagsterInstance) -> None:
    defs.get_repository_def().get_job(job).execute_in_process(instance=instance, raise_on_error=False)


def requested(defs: dg.Definitions, instance: dg.DagsterInstance, cursor: Any) -> tuple[int, Any]:
    result = dg.evaluate_automation_conditions(defs, instance=instance, cursor=cursor)
    return result.total_requested, result.cursor


def test_an_updated_audience_requests_its_sync_once(
    project: Project, a_sync: Sync, instance: dg.DagsterInstance
) -> None:
    defs = world(project, a_sync)
    count, cursor = requested(defs, instance, None)
    assert count == 0, "a new YAML file alone must not send"
    run(defs, "only_audience", instance)
    count, cursor = requested(defs, instance, cursor)
    assert count == 1
    count, cursor = requested(defs, instance, cursor)
    assert count == 0


def test_the_pipeline_that_already_synced_requests_nothing(
    project: Project, a_sync: Sync, instance: dg.DagsterInstance
) -> None:
    defs = world(project, a_sync)
    _, cursor = requested(defs, instance, None)
    run(defs, "everything", instance)
    assert requested(defs, instance, cursor)[0] == 0


def test_failed_expectations_keep_the_sync_back(
    project: Project, a_sync: Sync, instance: dg.DagsterInstance
) -> None:
    defs = world(project, a_sync, healthy=False)
    _, cursor = requested(defs, instance, None)
    run(defs, "only_audience", instance)
    assert requested(defs, instance, cursor)[0] == 0


def test_failed_expectations_stop_the_sync_inside_a_run(
    project: Project, a_sync: Sync, instance: dg.DagsterInstance
) -> None:
    run(world(project, a_sync, healthy=False), "everything", instance)
    assert instance.get_latest_materialization_event(audience_key(a_sync))
    assert instance.get_latest_materialization_event(sync_key(a_sync.name)) is None


def test_a_manual_sync_has_no_automation(project: Project, a_sync: Sync) -> None:
    from dataclasses import replace

    manual = sync_asset(replace(a_sync, schedule="manual"), project)
    automatic = sync_asset(a_sync, project)
    key = sync_key(a_sync.name)
    assert manual.automation_conditions_by_key.get(key) is None
    assert automatic.automation_conditions_by_key.get(key) is not None

"""One asset per sync YAML: upstream its audience, downstream nothing but monitoring; its metadata are counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from activations.cli.tables import held_text
from activations.config import Environment, Project, Sync
from activations.errors import ActivationsError
from activations.model import RunStatus, SyncRun
from dagster_project.defs.dbt import team
from dagster_project.resources import DUCKDB, Activations

GROUP = "syncs"

COUNTS_ADD_UP = "counts_add_up"
NOTHING_IN_DOUBT = "nothing_in_doubt"
FEW_REJECTED = "few_rejected"

REJECTED_SHARE = 0.05
"""More than this share of a run rejected for good, and somebody should look at the mapping."""

AFTER_AUDIENCE = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & dg.AutomationCondition.all_deps_blocking_checks_passed()
    & ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("after its audience")
"""`eager` without "newly missing" (a new YAML file alone must not send) and only behind passed checks."""


def sync_key(name: str) -> dg.AssetKey:
    return dg.AssetKey([GROUP, name])


def audience_key(sync: Sync) -> dg.AssetKey:
    return dg.AssetKey(["audiences", sync.audience])


def sync_asset(sync: Sync, project: Project, gates: Sequence[dg.AssetKey] = ()) -> dg.AssetsDefinition:
    """The factory: everything about the asset comes from the sync's YAML.

    `gates` are the models that planning joins for every sync: a withdrawn consent changes them, not the audience.
    """

    @dg.asset(
        key=sync_key(sync.name),
        deps=[audience_key(sync), *gates],
        group_name=GROUP,
        kinds={sync.account.kind},
        owners=[team(sync.owner)],
        tags=_tags(sync),
        description=_description(sync),
        automation_condition=AFTER_AUDIENCE if sync.schedule == "after_audience" else None,
        check_specs=_check_specs(sync),
        output_required=False,
        pool=DUCKDB,
    )
    def deliver(
        activations: Activations,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:  # type: ignore[type-arg]
        run = _run(activations, sync.name)
        metadata = {**run_metadata(run), **_links(sync, project)}
        _refuse_to_look_green(run, metadata)
        yield dg.MaterializeResult(metadata=metadata)
        yield from _check_results(sync, run)

    return deliver


def _run(activations: Activations, name: str) -> SyncRun:
    """An error of ours is one line for a person, so it becomes the run's message instead of a traceback."""
    try:
        return activations.engine().sync(name)
    except ActivationsError as error:
        raise dg.Failure(f"{name}: {error}", allow_retries=False) from None


def _refuse_to_look_green(run: SyncRun, metadata: Mapping[str, Any]) -> None:
    """HELD sent nothing and FAILED not everything: neither may materialise the asset."""
    if run.run_status in (RunStatus.SUCCEEDED, RunStatus.PARTIAL):
        return
    raise dg.Failure(explain(run), metadata=dict(metadata), allow_retries=False)


def explain(run: SyncRun) -> str:
    """Why a run did not go through, and what a person does next."""
    if run.run_status is not RunStatus.HELD:
        return f"{run.sync} {run.run_status.value}: {run.error or 'the next run continues it'}"
    sent = (
        f" Sent were {run.delivered} removals that may not wait." if run.delivered else " Nothing was sent."
    )
    return f"{run.sync} is HELD: {held_text(run)}.{sent}"


def run_metadata(run: SyncRun) -> dict[str, Any]:
    """Numbers, so that Dagster draws them over time; reasons and stages become one number each."""
    summary = run.summary()
    counts = {name: value for name, value in summary.items() if isinstance(value, int)}
    return {
        **counts,
        **_flat("ineligible", run.counts.ineligible_by_reason),
        **_flat("invalid", run.counts.invalid_by_reason),
        **_flat("waiting", run.counts.waiting_by_reason),
        **_flat("seconds", run.seconds),
        "run_status": summary["run_status"],
        "run_id": summary["run_id"],
        "plan_id": summary["plan_id"],
    }


def _flat(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}/{part}": value for part, value in values.items()}


def _links(sync: Sync, project: Project) -> dict[str, Any]:
    """Where to see the other side; a live account has no page that we know of."""
    if sync.account.environment is not Environment.SANDBOX:
        return {}
    return {"sandbox": dg.MetadataValue.url(project.sandbox_url)}


def _tags(sync: Sync) -> dict[str, str]:
    return {
        "channel": sync.channel.value,
        "purpose": sync.purpose,
        "mode": sync.mode.value,
        "environment": sync.account.environment.value,
    }


def _description(sync: Sync) -> str:
    said = f"{sync.description}\n\n" if sync.description else ""
    holdout = f", without the holdout `{sync.holdout}`" if sync.holdout else ""
    return (
        f"{said}Audience `{sync.audience}` to `{sync.account.name}` ({sync.account.kind}), mode {sync.mode.value}: "
        f"people who may be reached by {sync.channel.value} for {sync.purpose}{holdout}. "
        f"Defined in `activations/syncs/{sync.file.name}`."
    )


def _check_specs(sync: Sync) -> list[dg.AssetCheckSpec]:
    said = {
        COUNTS_ADD_UP: "Every planned row has exactly one outcome, and the audience is the sum of its parts.",
        NOTHING_IN_DOUBT: "The destination's answer is known for every row that was sent.",
        FEW_REJECTED: f"The destination rejected at most {REJECTED_SHARE:.0%} of what was sent.",
    }
    key = sync_key(sync.name)
    return [dg.AssetCheckSpec(name, asset=key, description=text) for name, text in said.items()]


def _check_results(sync: Sync, run: SyncRun) -> Iterator[dg.AssetCheckResult]:
    yield _result(sync, COUNTS_ADD_UP, adds_up(run), dg.AssetCheckSeverity.ERROR, planned=run.counts.planned)
    yield _result(sync, NOTHING_IN_DOUBT, not run.in_doubt, dg.AssetCheckSeverity.WARN, in_doubt=run.in_doubt)
    few = run.rejected <= REJECTED_SHARE * run.counts.planned
    yield _result(sync, FEW_REJECTED, few, dg.AssetCheckSeverity.WARN, rejected=run.rejected)


def _result(
    sync: Sync, name: str, passed: bool, severity: dg.AssetCheckSeverity, **metadata: int
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=sync_key(sync.name), check_name=name, passed=passed, severity=severity, metadata=metadata
    )


def adds_up(run: SyncRun) -> bool:
    """planned = delivered + rejected + retryable + in doubt + suppressed, on top of the plan's own arithmetic."""
    outcomes = run.delivered + run.rejected + run.retryable + run.in_doubt + run.suppressed
    return run.counts.planned == outcomes and run.counts.adds_up

"""Tell a person: a line in the daemon's log, and a POST when ACTIVATIONS_ALERT_WEBHOOK holds an address.

Alerts carry names of runs, steps and checks only. Error texts stay in Dagster: one of a database may quote a value.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import dagster as dg

from activations.config.egress import check_address
from activations.delivery.connections import Gate
from activations.errors import ActivationsError, DeliveryError
from activations.model import Request
from activations.parts import open_transport
from dagster_project.resources import project

WEBHOOK = "ACTIVATIONS_ALERT_WEBHOOK"
SECONDS = 10.0


def send(log: logging.Logger, text: str) -> None:
    """The body `{"text": …}` is what chat tools accept. A broken webhook is logged, it fails no tick."""
    log.warning(text)
    if address := os.environ.get(WEBHOOK):
        try:
            _post(address, text)
        except ActivationsError as error:
            log.error(f"the alert could not be posted to {WEBHOOK}: {error}")


def _post(address: str, text: str) -> None:
    """By the rules that hold for destinations: a variable too is written by people."""
    found = project()
    egress = found.settings.egress
    check_address(address, egress, own_host=None, file=Path("environment"), key=WEBHOOK)
    with closing(open_transport(found, Gate(egress=egress))) as transport:
        answer = transport.send(
            Request(method="POST", url=address, json_body={"text": text}), seconds=SECONDS
        )
    if not answer.is_success:
        raise DeliveryError(f"it answered HTTP {answer.status}. Check the address")


def failed_steps(context: dg.RunFailureSensorContext) -> str:
    return ", ".join(event.step_key or "" for event in context.get_step_failure_events()) or "the run itself"


@dg.run_failure_sensor(
    name="alert_on_failure",
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A failed run, a held or failed sync, a blocking check that stopped the pipeline.",
)
def alert_on_failure(context: dg.RunFailureSensorContext) -> None:
    run = context.dagster_run
    send(context.log, f"FAILED {run.job_name} run {run.run_id}: {failed_steps(context)}")


@dg.run_status_sensor(
    name="alert_on_warnings",
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A run that went through although checks warned: rejected rows, rows in doubt.",
)
def alert_on_warnings(context: dg.RunStatusSensorContext) -> None:
    warned = sorted(failed_checks(context.instance, context.dagster_run.run_id))
    if warned:
        run = context.dagster_run
        send(context.log, f"WARNING {run.job_name} run {run.run_id}: {', '.join(warned)}")


def failed_checks(instance: dg.DagsterInstance, run_id: str) -> Iterable[str]:
    """asset:check of every check of this run that did not pass."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    for event in events:
        evaluation = event.get_dagster_event().asset_check_evaluation_data
        if not evaluation.passed:
            yield f"{evaluation.asset_key.to_user_string()}:{evaluation.check_name}"


ALERTS = [alert_on_failure, alert_on_warnings]

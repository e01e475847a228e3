"""The whole pipeline once a day. Off until somebody turns it on: looking at the project must not start sending."""

from __future__ import annotations

import dagster as dg

from dagster_project.defs.jobs import pipeline

daily = dg.ScheduleDefinition(
    name="daily",
    job=pipeline,
    cron_schedule="0 6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Loads, builds, checks and delivers every day at 06:00 UTC.",
)

SCHEDULES = [daily]

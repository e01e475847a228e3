"""One file per idea: sources, dbt, checks, syncs, jobs, schedules, sensors, alerts."""

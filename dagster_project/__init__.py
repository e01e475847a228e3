"""When: assets, checks, schedules and sensors."""

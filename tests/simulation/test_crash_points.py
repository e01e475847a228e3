"""The engine dies before and after every commit of a few fixed scenarios, and the next run puts everything right."""

from __future__ import annotations

import pytest

from tests.simulation.crash_points import SCENARIOS, Scenario, play, points_of


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_crash_at_any_commit_breaks_nothing(scenario: Scenario) -> None:
    points = points_of(scenario)
    assert len(points) >= 20, "two for every commit; fewer, and the run did not do what it is about"
    requests = 0
    for point in points:
        result = play(scenario, point)
        assert result.violations == (), point
        requests += result.counts["requests"]
    assert requests >= len(points) - 1, (
        "a message whose intent was the last thing that happened is not sent at all"
    )

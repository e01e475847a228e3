"""A simulation is worth what it catches: take a protective measure out of the engine, and it has to notice."""

from __future__ import annotations

import os

import pytest

from tests.simulation.ablations import ABLATIONS, Ablation, caught_by

FAST = 20
"""Ablations that take more seeds than this run with `make simulate`."""
ALL = bool(os.environ.get("ALL_ABLATIONS"))


@pytest.mark.parametrize(
    "ablation", [a for a in ABLATIONS if a.within and (ALL or a.within <= FAST)], ids=lambda a: a.name
)
def test_the_simulation_notices(ablation: Ablation) -> None:
    assert ablation.within is not None
    assert caught_by(ablation, range(ablation.within)), f"{ablation.name}: not noticed"

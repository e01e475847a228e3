from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.engine.world import World


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    monkeypatch.delenv("DBT_TARGET_PATH", raising=False)

    def make(**options: Any) -> World:
        return World(tmp_path, **options)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()

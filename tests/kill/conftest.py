"""The judge reads the world of its own folder, wherever who runs the tests keeps theirs."""

from __future__ import annotations

import pytest

from tests.engine.conftest import forget_environment


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_environment(monkeypatch)

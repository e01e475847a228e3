"""One sandbox for the module, and the vendors' published contracts where they are at hand."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from activations.destinations.base import Destination
from activations.destinations.registry import KINDS
from activations.sandbox.credentials import base_url_for, credentials_for
from activations.sandbox.server import RunningSandbox, start_in_background
from activations.sandbox.state import Place
from tests.contract.driver import Driver

ROOT = Path(__file__).resolve().parents[2]
LIST, AUDIENCE = "LIST01", "120210000000000001"
TARGETS: dict[str, dict[str, Any]] = {
    "klaviyo": {"list_id": LIST, "custom_source": "loyalty programme"},
    "twilio": {
        "messaging_service_sid": "MG" + "0" * 32,
        "body": "Hi {first_name|there}, {items} items wait for you. Reply STOP to opt out.",
    },
    "meta_custom_audience": {"audience_id": AUDIENCE},
    "webhook": {},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "twilio": {"status_callback": "https://hooks.example.com/twilio"},
    "webhook": {"url": "https://hooks.example.com/activations"},
}


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    places = [
        Place(kind=kind, target=TARGETS[kind], name="a_sync") for kind in ("klaviyo", "meta_custom_audience")
    ]
    folder = tmp_path_factory.mktemp("sandbox")
    with start_in_background(folder, places=places, job_seconds=0.06) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: RunningSandbox) -> RunningSandbox:
    """The one sandbox, holding nothing."""
    running.sandbox.dial.clear()
    running.sandbox.state.forget()
    return running


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def build(sandbox: RunningSandbox) -> Any:
    """`build(kind, **target)`: that destination with the sandbox's address and credentials."""

    def build(kind: str, *, config: dict[str, Any] | None = None, **target: Any) -> Destination[Any, Any]:
        options = {**credentials_for(kind), "base_url": base_url_for(kind, sandbox.url)}
        return make(kind, {**options, **(config or {})}, target)

    return build


def make(kind: str, config: dict[str, Any], target: dict[str, Any] | None = None) -> Destination[Any, Any]:
    cls = KINDS[kind]
    settings = cls.Config(**{**OPTIONS.get(kind, {}), **config})
    return cls(settings, cls.TargetConfig(**{**TARGETS[kind], **(target or {})}))


@pytest.fixture(scope="session")
def contracts() -> ModuleType:
    """The checker that lies beside the vendors' contracts. Those are not ours to ship, so they may be absent."""
    folder = Path(os.environ.get("VENDOR_SPECS_DIR", ROOT.parent / "shared" / "specs"))
    script = folder / "validate_request.py"
    if not script.is_file():
        reason = f"no vendor contracts: set VENDOR_SPECS_DIR to a folder with {script.name} (looked in {folder.name}/)"
        print(reason)
        pytest.skip(reason)
    spec = importlib.util.spec_from_file_location("vendor_contracts", script)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

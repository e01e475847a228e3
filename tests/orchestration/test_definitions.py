"""The code location: everything is there, connected, and nothing is opened to find out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster_dbt import DbtCliResource, DbtProject

from activations.config import Project
from dagster_project.defs.dbt import InstalledDbt, is_stale, prepare_environment
from dagster_project.defs.sources import LEDGER
from dagster_project.defs.syncs import audience_key, sync_key
from dagster_project.local import SETTINGS
from dagster_project.raw.load import RAW_TABLES
from dagster_project.resources import DUCKDB, ROOT
from tests.orchestration.conftest import Loading

GATES = {dg.AssetKey(["eligibility", "fct_eligibility"]), dg.AssetKey(["eligibility", "dim_holdouts"])}


@pytest.fixture(scope="module")
def models(project: Project) -> dict[str, dict]:
    nodes = json.loads(project.manifest_path.read_text())["nodes"].values()
    return {node["name"]: node for node in nodes if node["resource_type"] == "model"}


def test_every_raw_table_is_an_asset(graph) -> None:
    expected = {dg.AssetKey(["raw", name]) for name in RAW_TABLES}
    assert {key for key in graph.materializable_asset_keys if key.path[0] == "raw"} == expected


def test_every_dbt_model_is_an_asset_of_its_layer(graph, models) -> None:
    names = {key.path[-1] for key in graph.materializable_asset_keys}
    assert set(models) <= names
    for key in graph.materializable_asset_keys:
        if key.path[-1] in models:
            assert key.path[0] == models[key.path[-1]]["schema"] == graph.get(key).group_name


def test_every_dbt_test_of_a_model_is_an_asset_check(graph, project: Project) -> None:
    """A test that is a file and reads several models names the one it belongs to: `meta.dagster.ref`."""
    nodes = json.loads(project.manifest_path.read_text())["nodes"].values()
    tests = {
        node["name"]
        for node in nodes
        if node["resource_type"] == "test"
        and any(parent.startswith("model.") for parent in node["depends_on"]["nodes"])
    }
    assert tests
    assert tests <= {key.name for key in graph.asset_check_keys}


def test_every_sync_is_an_asset_behind_its_audience(graph, project: Project) -> None:
    syncs = {key for key in graph.materializable_asset_keys if key.path[0] == "syncs"}
    assert syncs == {sync_key(name) for name in project.syncs}
    for name, sync in project.syncs.items():
        node = graph.get(sync_key(name))
        assert node.parent_keys == {audience_key(sync), *GATES}, "a withdrawn consent moves only the gates"
        assert node.kinds == {sync.account.kind}
        assert node.tags["channel"] == sync.channel
        assert node.tags["purpose"] == sync.purpose


def test_lineage_reaches_from_raw_tables_to_every_sync(graph, project: Project) -> None:
    """No asset in between is external: a key that does not match would cut the line right there."""
    assert not graph.external_asset_keys
    for name in project.syncs:
        ancestors = graph.get_ancestor_asset_keys(sync_key(name))
        for table in ("crm_contacts", "consent_events", "suppression_list"):
            assert dg.AssetKey(["raw", table]) in ancestors, f"{name} does not come from raw.{table}"
        assert LEDGER in ancestors


def test_monitoring_comes_after_every_sync(graph, project: Project) -> None:
    keys = [key for key in graph.materializable_asset_keys if key.path[0] == "monitoring"]
    assert keys
    for key in keys:
        assert {sync_key(name) for name in project.syncs} <= graph.get_ancestor_asset_keys(key)


def test_everything_that_opens_the_warehouse_takes_its_turn(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    for node in repository.get_job("pipeline").all_node_defs:
        assert node.pools == {DUCKDB}, f"{node.name} is outside the pool"


def test_every_sync_of_the_pipeline_waits_for_the_expectations(graph, project: Project) -> None:
    for sync in project.syncs.values():
        check = dg.AssetCheckKey(audience_key(sync), "expectations")
        assert graph.get(check).blocking
    assert graph.get(dg.AssetCheckKey(dg.AssetKey(["profiles", "dim_profiles"]), "expectations")).blocking


def test_every_asset_says_what_it_is(graph) -> None:
    silent = [
        key.to_user_string() for key in graph.materializable_asset_keys if not graph.get(key).description
    ]
    assert not silent


def test_instance_settings_keep_one_writer_and_call_nobody() -> None:
    settings = yaml.safe_load(SETTINGS.read_text())
    assert settings["concurrency"]["pools"] == {"granularity": "run", "default_limit": 1}
    assert settings["telemetry"] == {"enabled": False}
    assert settings["nux"] == {"enabled": False}


def test_dagster_accepts_the_instance_settings(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text(SETTINGS.read_text())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        pools = instance.get_concurrency_config().pool_config
    assert pools.default_pool_limit == 1
    assert pools.pool_granularity.value == "run"


def test_workspace_names_the_code_location() -> None:
    (target,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert target["python_module"]["module_name"] == "dagster_project.definitions"


def test_loading_opens_no_warehouse_and_pays_for_no_validation(loading: Loading) -> None:
    assert not loading.opened_warehouse
    assert not loading.imported_great_expectations


def test_dbt_is_not_asked_for_its_version_over_the_network(defs: dg.Definitions) -> None:
    """Both names belong to dagster-dbt: should it rename them, our shortcuts would be dead code."""
    for name in ("_cli_version", "_initialize_dbt_core_adapter"):
        assert name in vars(DbtCliResource)
        assert name in vars(InstalledDbt)
    assert isinstance(defs.resources["dbt"], InstalledDbt)


@pytest.mark.parametrize("state_folder", [None, "var"])
def test_dbt_finds_the_warehouse_from_inside_its_own_folder(
    monkeypatch: pytest.MonkeyPatch, project: Project, state_folder: str | None
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DBT_INDIRECT_SELECTION", "buildable")
    monkeypatch.setenv("ACTIVATIONS_VAR", state_folder or "")
    if state_folder is None:
        monkeypatch.delenv("ACTIVATIONS_VAR")
    prepare_environment()
    assert os.environ["ACTIVATIONS_VAR"] == str(ROOT / "var")


def test_dbt_parses_again_only_after_a_change(tmp_path: Path) -> None:
    (tmp_path / "models" / "staging").mkdir(parents=True)
    (tmp_path / "dbt_project.yml").write_text("name: p")
    model = tmp_path / "models" / "staging" / "stg_x.sql"
    model.write_text("select 1")
    project = DbtProject(tmp_path)
    assert is_stale(project), "there is no manifest yet"
    project.manifest_path.parent.mkdir()
    project.manifest_path.touch()
    assert not is_stale(project)
    os.utime(project.manifest_path, (0, 0))
    assert is_stale(project)

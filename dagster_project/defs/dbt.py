"""dbt models as assets. Three invocations, cut where something has to stand between two of them:

profiles ─(checks on the profiles)─▶ audiences ─(checks on each audience)─▶ syncs ─▶ monitoring

A blocking check stops what comes after it only when that is another step, and monitoring reads what the syncs wrote.
"""

# No `from __future__ import annotations` here: Dagster compares the type of `context` with the class itself.

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
from dagster_dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliResource,
    DbtProject,
    dbt_assets,
)
from packaging.version import Version

from activations.config import Project
from activations.errors import ConfigError
from dagster_project import resources
from dagster_project.defs.sources import LEDGER
from dagster_project.resources import DUCKDB

Properties = Mapping[str, Any]

PROFILES = ("run_clock", "staging", "identity", "profiles")
MONITORING = "monitoring"


class LayerTranslator(DagsterDbtTranslator):
    """Assets are named layer/model and grouped by layer, which is the model's folder and its schema."""

    def __init__(self, sync_keys: Sequence[dg.AssetKey]) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_duplicate_source_asset_keys=True))
        self._sync_keys = sync_keys

    def get_asset_key(self, dbt_resource_props: Properties) -> dg.AssetKey:
        if dbt_resource_props["resource_type"] == "source":
            return source_key(dbt_resource_props)
        return dg.AssetKey([layer(dbt_resource_props), dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Properties) -> str:
        return layer(dbt_resource_props)

    def get_description(self, dbt_resource_props: Properties) -> str:
        """The model's own words; the SQL is one click away and would bury them."""
        return dbt_resource_props["description"] or f"dbt model {dbt_resource_props['name']}"

    def get_owners(self, dbt_resource_props: Properties) -> Sequence[str] | None:
        owner = meta(dbt_resource_props).get("owner") or _group_owner(dbt_resource_props)
        return [team(owner)] if owner else None

    def get_tags(self, dbt_resource_props: Properties) -> Mapping[str, str]:
        purpose = meta(dbt_resource_props).get("purpose")
        return {**super().get_tags(dbt_resource_props), **({"purpose": purpose} if purpose else {})}

    def get_asset_spec(
        self, manifest: Properties, unique_id: str, project: DbtProject | None
    ) -> dg.AssetSpec:
        """Monitoring comes after the syncs: it reads what they wrote, which no `ref` or `source` says."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        if spec.group_name != MONITORING or not unique_id.startswith("model."):
            return spec
        return spec.merge_attributes(deps=self._sync_keys)


def source_key(properties: Properties) -> dg.AssetKey:
    """raw/<table>, as the assets that load it; every ledger table is the one asset that makes them all."""
    if properties["schema"] == LEDGER.path[0]:
        return LEDGER
    return dg.AssetKey([properties["schema"], properties["identifier"]])


def model_key(manifest: Properties, name: str) -> dg.AssetKey:
    """The asset of the model of that name; a ConfigError when dbt knows none."""
    for node in manifest["nodes"].values():
        if node["resource_type"] == "model" and node["name"] == name:
            return dg.AssetKey([layer(node), name])
    raise ConfigError(
        f"dbt has no model `{name}`", file="activations/project.yml", key="dbt", fix="Correct the name"
    )


def layer(properties: Properties) -> str:
    """The folder below models/; a model that lies directly in there is named by its schema."""
    folders = properties["fqn"][1:-1]
    return str(folders[0] if folders else properties["schema"])


def meta(properties: Properties) -> Properties:
    return properties.get("config", {}).get("meta") or {}


def team(owner: str) -> str:
    """Dagster knows owners as addresses or as team:name."""
    return owner if "@" in owner else f"team:{owner}"


def _group_owner(properties: Properties) -> str | None:
    group = properties.get("group")
    return group.get("owner", {}).get("name") if isinstance(group, Mapping) else None


def dbt_project(project: Project) -> DbtProject:
    """The dbt project with a manifest that knows every file: assets of a model deleted yesterday would mislead."""
    prepared = DbtProject(project.dbt_project_dir, target_path=project.manifest_path.parent)
    if is_stale(prepared):
        parse(prepared)
    return prepared


def parse(project: DbtProject) -> None:
    """Written aside and then moved into place: another process may be reading the manifest this instant."""
    target = project.manifest_path.parent
    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target, prefix="parse-") as draft:
        dbt_cli(project).cli(["parse", "--quiet"], target_path=Path(draft)).wait()
        for name in ("partial_parse.msgpack", "manifest.json"):
            (Path(draft) / name).replace(target / name)


def is_stale(project: DbtProject) -> bool:
    """Whether dbt has to parse again: no manifest, or a file or folder changed after it was written."""
    if not project.manifest_path.exists():
        return True
    written = project.manifest_path.stat().st_mtime
    return any(path.stat().st_mtime > written for path in _sources(project))


def _sources(project: DbtProject) -> Iterator[Path]:
    """Files and folders (a deletion touches its folder) that dbt parses."""
    yield from project.project_dir.glob("*.yml")
    for name in ("models", "macros", "seeds", "tests", "snapshots"):
        folder = project.project_dir / name
        if folder.is_dir():
            yield folder
            yield from folder.rglob("*")


class InstalledDbt(DbtCliResource):
    """dbt as it is installed beside this interpreter, without what dagster-dbt does before every command."""

    @cached_property
    def _cli_version(self) -> Version:
        """`dbt --version` asks the package registry for the newest release: seconds, and a call to the outside."""
        return Version(metadata.version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Sequence[str]) -> Any:
        """Only row counts and column types would need it, and building it costs seconds for each command."""


def dbt_cli(project: DbtProject) -> InstalledDbt:
    """dbt from this interpreter's own environment: it need not be on PATH."""
    executable = Path(sys.executable).with_name("dbt")
    return InstalledDbt(project_dir=project, dbt_executable=str(executable))  # type: ignore[arg-type]


def prepare_environment() -> None:
    """dagster-dbt takes no variables but those of the process."""
    # A test that also reads a later model waits for the later invocation; dbt's default would run it now.
    os.environ.setdefault("DBT_INDIRECT_SELECTION", "buildable")
    # dbt starts inside its own folder, where a relative state folder, and the default too, are somewhere else.
    os.environ["ACTIVATIONS_VAR"] = str(resources.project().var)


def read_manifest(project: DbtProject) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads(project.manifest_path.read_text(encoding="utf-8"))
    return manifest


def sources(manifest: Properties, *, of_ledger: bool) -> list[str]:
    """Selects the tests of source tables themselves: raw data before anything is built, the ledger after the syncs."""
    found = manifest["sources"].values()
    return sorted({f"source:{s['source_name']}" for s in found if (source_key(s) == LEDGER) is of_ledger})


def between(manifest: Properties) -> list[str]:
    """Every other layer. Named one by one, because dbt's --exclude also drops tests that touch what it excludes."""
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    folders = {node["fqn"][1] for node in models}
    return sorted(folders - {*PROFILES, MONITORING})


def models_as_assets(
    project: DbtProject, manifest: Properties, translator: LayerTranslator
) -> list[dg.AssetsDefinition]:
    def step(name: str, select: Sequence[str]) -> dg.AssetsDefinition:
        @dbt_assets(
            name=name,
            manifest=manifest,
            select=" ".join(select),
            project=project,
            dagster_dbt_translator=translator,
            pool=DUCKDB,
        )
        def build(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
            prepare_environment()
            # Unit tests need no data and belong to `make test`; data tests run here and become asset checks.
            command = ["build", "--exclude-resource-type", "unit_test"]
            # A folder per step, not per run: dagster-dbt would leave some ten megabytes behind each time.
            yield from dbt.cli(command, context=context, target_path=project.target_path / name).stream()

        return build

    return [
        step("dbt_profiles", [*sources(manifest, of_ledger=False), *PROFILES]),
        step("dbt_audiences", between(manifest)),
        step("dbt_monitoring", [*sources(manifest, of_ledger=True), MONITORING]),
    ]

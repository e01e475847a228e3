"""Syncs as dbt exposures: `dbt ls --select +exposure:…` and dbt's docs thus end at the destination.

The YAML of the syncs is the source; the exposures are written from it and never edited by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from activations.config import Project, Sync
from activations.errors import ConfigError

_HEADER = "# Written by `activations exposures` from activations/syncs/. Do not edit.\n"


def path_of(project: Project) -> Path:
    return project.dbt_project_dir / "models" / "exposures.yml"


def render(project: Project) -> str:
    """The file's text: the same for the same syncs."""
    document = {"version": 2, "exposures": [_exposure(sync) for sync in project.syncs.values()]}
    return _HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def write(project: Project) -> Path:
    path = path_of(project)
    if not path.parent.is_dir():
        raise ConfigError(
            "is not a dbt project: it has no folder `models`",
            file=project.dbt_project_dir,
            fix="Correct `dbt.project_dir` in activations/project.yml",
        )
    path.write_text(render(project), encoding="utf-8")
    return path.relative_to(project.root)


def check(project: Project) -> Path:
    """The path; ConfigError when the file is not what the syncs say."""
    path = path_of(project)
    if not path.exists() or path.read_text(encoding="utf-8") != render(project):
        raise ConfigError(
            "does not say what activations/syncs/ says",
            file=path.relative_to(project.root),
            fix="Run `activations exposures` and commit the file",
        )
    return path.relative_to(project.root)


def _exposure(sync: Sync) -> dict[str, Any]:
    return {
        "name": sync.name,
        "type": "application",
        "maturity": "high",
        "description": sync.description
        or f"{sync.audience} to {sync.account.name} ({sync.account.kind}), {sync.mode.value}.",
        "depends_on": [f"ref('{sync.audience}')"],
        "owner": {"name": sync.owner},
        "config": {
            "tags": [sync.channel.value, sync.purpose],
            "meta": {
                "destination": sync.account.name,
                "channel": sync.channel.value,
                "purpose": sync.purpose,
                "mode": sync.mode.value,
                "fields": sorted([*sync.identifiers, *sync.fields]),
            },
        },
    }

"""YAML on disk → typed, frozen values. Whatever cannot work is refused here, with file, key and fix."""

from activations.config.accounts import Account, Environment
from activations.config.egress import Egress
from activations.config.kinds import Kind
from activations.config.project import Project, load_project
from activations.config.syncs import FieldMapping, Guard, OnNull, Sync, sync_json_schema

__all__ = [
    "Account",
    "Egress",
    "Environment",
    "FieldMapping",
    "Guard",
    "Kind",
    "OnNull",
    "Project",
    "Sync",
    "load_project",
    "sync_json_schema",
]

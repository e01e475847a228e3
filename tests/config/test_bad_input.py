"""Whatever is wrong with a file, the message names the file, the key, the value and the fix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activations.config.documents import read_yaml
from activations.config.secrets import resolve
from activations.errors import ActivationsError, ConfigError, SecretError
from activations.manifest import check_sync, load_manifest
from activations.runner import Engine, build_destination, load_project
from tests.engine.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    monkeypatch.delenv("DBT_TARGET_PATH", raising=False)
    return World(tmp_path)


def problem(world: World) -> str:
    with pytest.raises(ActivationsError) as caught:
        Engine(load_project(world.root)).check()
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modee": "mirror"}, ["people.yml", "modee", "unknown key", "Did you mean `mode`?"]),
        ({"mode": None, "mod": "mirror"}, ["people.yml", "mod", "unknown key", "Did you mean `mode`?"]),
        ({"mode": "mirrorr"}, ["people.yml", "mode", "mirrorr", "mirror"]),
        ({"purpose": None}, ["people.yml", "purpose"]),
        ({"destination": "nowhere"}, ["people.yml", "destination", "nowhere", "Known: hook"]),
        ({"audience": "aud_nobody"}, ["people.yml", "audience", "aud_nobody", "aud_people"]),
        ({"audience": "fct_eligibility"}, ["people.yml", "private", "aud_"]),
        ({"fields": {"score": "no_such"}}, ["people.yml", "fields.score", "no_such", "person_id, email"]),
        ({"identifiers": {"email": "score"}}, ["people.yml", "identifiers.email", "must be text", "integer"]),
        ({"identifiers": {"fax": "email"}}, ["people.yml", "identifiers", "fax", "email"]),
        ({"identifiers": {}}, ["people.yml", "identifiers"]),
        ({"occurrence": "event_id"}, ["people.yml", "occurrence", "append"]),
        (
            {"guard": {"max_removed_shar": 0.1}},
            ["people.yml", "guard.max_removed_shar", "Did you mean `max_removed_share`?"],
        ),
        ({"guard": {"max_removed_share": 20}}, ["people.yml", "guard.max_removed_share", "20"]),
        ({"channel": "sms"}, ["people.yml", "built for email, not sms"]),
        ({"target": {"list": "x"}}, ["people.yml", "target.list", "unknown key"]),
        ({"fields": {"score": {"column": "score", "onnull": "clear"}}}, ["people.yml", "fields.score"]),
    ],
)
def test_a_wrong_sync_is_refused_with_key_and_fix(
    world: World, change: dict[str, object], words: list[str]
) -> None:
    world.configure(**change)
    text = problem(world)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("key", ["purpose", "channel", "audience", "mode", "owner"])
def test_a_sync_without_what_it_needs_does_not_load(world: World, key: str) -> None:
    document = yaml.safe_load(world.sync_file.read_text())
    del document[key]
    world.sync_file.write_text(yaml.safe_dump(document))
    assert f"people.yml: {key}: is missing. Add `{key}:`" in problem(world)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("audience: [1, 2", "line 1"),
        ("a: 1\na: 2\n", "line 2: the key 'a' is given twice"),
        ("a: &x 1\nb: *x\n", "line 2: aliases"),
        ("- a\n- b\n", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("[" * 40 + "]" * 40, "nested deeper"),
        ("a: " + "x" * 300_000, "larger than"),
        ("{[1]: 2}", "not valid YAML"),
    ],
)
def test_broken_yaml_is_one_line_that_names_the_place(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "broken.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="broken.yml") as caught:
        read_yaml(file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_says_what_it_looks_like(tmp_path: Path) -> None:
    """No Norway problem, no sexagesimal numbers."""
    file = tmp_path / "values.yml"
    file.write_text("country: NO\non: off\ntime: 12:30:45\nnumber: 1_000\nflag: true\n")
    assert read_yaml(file) == {
        "country": "NO",
        "on": "off",
        "time": "12:30:45",
        "number": "1_000",
        "flag": True,
    }


@given(st.text(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_no_text_breaks_the_reader(tmp_path: Path, text: str) -> None:
    file = tmp_path / "any.yml"
    file.write_text(text, encoding="utf-8", newline="")
    try:
        assert isinstance(read_yaml(file), dict)
    except ConfigError as error:
        assert "any.yml" in str(error)


def test_a_credential_in_a_file_is_refused_and_not_repeated(world: World) -> None:
    file = world.root / "activations/destinations.yml"
    file.write_text(file.read_text().replace("env:NOT_SET", "whsec_c2VjcmV0c2VjcmV0"))
    text = problem(world)
    assert "destinations.hook.signing_secret" in text and "env:NAME" in text
    assert "whsec_" not in text


@pytest.mark.parametrize(("old", "new", "words"), [
    ("kind: webhook", "kind: webhok", ["destinations.hook.kind", "webhok", "webhook"]),
    ("environment: sandbox", "environment: production", ["destinations.hook.environment", "production"]),
    ("signing_secret", "signing_secrt", ["destinations.hook", "signing_sec"]),
    ("destinations:", "destination:", ["exactly one key, `destinations`"]),
])  # fmt: skip
def test_a_wrong_account_is_refused(world: World, old: str, new: str, words: list[str]) -> None:
    file = world.root / "activations/destinations.yml"
    file.write_text(file.read_text().replace(old, new))
    text = problem(world)
    assert all(word in text for word in ["destinations.yml", *words]), text


def test_a_reference_that_leads_nowhere_stops_the_run_before_anything_happens(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    file = world.root / "activations/destinations.yml"
    file.write_text(file.read_text().replace("sandbox", "live"))
    with pytest.raises(
        SecretError, match=r"destinations.hook.signing_secret: the environment variable NOT_SET is not set"
    ):
        world.add("a").run()
    assert world.other.requests == 0


def test_secrets_come_from_the_environment_or_a_file(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOT_SET", "whsec_c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")
    file = world.root / "activations/destinations.yml"
    file.write_text(file.read_text().replace("sandbox", "live"))
    project = load_project(world.root)
    assert "c2VjcmV0" not in repr(build_destination(project, project.sync("people")).config)
    (tmp_path / "key").write_text("from a file\n")
    assert resolve("file:key", file=file, key="k", root=tmp_path) == "from a file"
    with pytest.raises(SecretError, match="cannot be read"):
        resolve("file:absent", file=file, key="k", root=tmp_path)


def test_dbt_that_was_never_run_is_said_plainly(world: World) -> None:
    (world.root / "dbt/target/manifest.json").unlink()
    assert "dbt build" in problem(world)


def test_floats_and_keys_with_personal_data_cannot_be_synced(world: World) -> None:
    project = load_project(world.root)
    sync, manifest = project.sync("people"), load_manifest(project)
    audience = manifest.audience("aud_people", sync.file)
    for column, kind, pii, words in [
        ("score", "double", None, "whose last digits change"),
        ("score", "struct(a integer)", None, "cannot be sent"),
        ("person_id", "varchar", "email", "keys are kept in the ledger"),
    ]:
        spoiled = replace(
            audience,
            columns={**audience.columns, column: replace(audience.columns[column], data_type=kind, pii=pii)},
        )
        with pytest.raises(ConfigError, match=words):
            check_sync(sync, spoiled, "person_id")


def test_the_schema_for_editors_knows_every_key() -> None:
    from activations.config import sync_json_schema

    properties = sync_json_schema()["properties"]
    assert {"audience", "destination", "channel", "purpose", "mode", "identifiers", "fields", "guard"} <= set(
        properties
    )
    assert sync_json_schema()["additionalProperties"] is False
    assert sync_json_schema()["title"] == "Activations sync"


@pytest.mark.parametrize(("journal", "words"), [
    ({"type": "postgres"}, ["journal", "needs `dsn: env:NAME`"]),
    ({"type": "postgres", "dsn": "postgresql://u:secret@host/db"}, ["journal", "needs `dsn: env:NAME`"]),
    ({"type": "sqlite", "dsn": "env:X"}, ["journal", "`dsn` does not belong to type sqlite"]),
    ({"schema": "x"}, ["journal", "`schema` does not belong to type sqlite"]),
    ({"type": "postgres", "dsn": "env:X", "schema": "No Name"}, ["journal.schema", "No Name"]),
    ({"type": "postgres", "dsn": "env:X", "shema": "x"}, ["journal.shema", "unknown key", "Did you mean `schema`?"]),
    ({"type": "mysql"}, ["journal.type", "mysql", "postgres"]),
])  # fmt: skip
def test_a_wrong_journal_is_refused_before_anything_is_opened(
    world: World, journal: dict[str, object], words: list[str]
) -> None:
    (world.root / "activations/project.yml").write_text(yaml.safe_dump({"journal": journal}))
    text = problem(world)
    assert all(word in text for word in ["project.yml", *words]), text
    assert "secret" not in text

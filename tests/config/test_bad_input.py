"""Whatever is wrong with a file, the message names the file, the key, the value and the fix."""

from __future__ import annotations

import re
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
from activations.parts import open_warehouse
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
        (
            {"fields": {"score": {"column": "score", "onnull": "clear"}}},
            ["people.yml: fields.score.onnull: unknown key. Did you mean `on_null`?"],
        ),
        (
            {"fields": {"score": {"column": "score", "on_null": "clr"}}},
            [
                "people.yml: fields.score.on_null: must be 'omit' or 'clear' (found 'clr'). Did you mean `clear`?"
            ],
        ),
        (
            {"fields": {"score": {"on_null": "clear"}}},
            ["people.yml: fields.score.column: is missing. Add `column:`"],
        ),
        (
            {"fields": {"score": None}},
            ["people.yml: fields.score: must be a column's name", "(found nothing). Fill it in"],
        ),
        (
            {"fields": {"score": "no column"}},
            ["people.yml: fields.score: must be a column's name", "'no column'"],
        ),
        ({"fields": {"1st": "score"}}, ["people.yml: fields.1st: must be a field's name"]),
        ({"fields": {1: "score"}}, ["people.yml: fields.1: must be a field's name", "(found 1)"]),
        ({"fields": ["score"]}, ["people.yml: fields: must hold keys and values (found a list)"]),
        ({"identifiers": {}}, ["people.yml: identifiers: must have 1 or more entries. Fill it in"]),
        ({"owner": None}, ["people.yml: owner: must be text (found nothing). Fill it in"]),
        ({"owner": " "}, ["people.yml: owner: must not be blank (found ' '). Fill it in"]),
        ({"owner": 7}, ["people.yml: owner: must be text (found 7). Put it in quotes"]),
        ({"mode": "miror"}, ["people.yml: mode: must be 'upsert'", "Did you mean `mirror`?"]),
        (
            {"purpose": "Marketing"},
            ["people.yml: purpose: must be a name: lower-case letters", "'Marketing'"],
        ),
        ({"guard": {"floor_rows": 2.5}}, ["guard.floor_rows: must be a whole number (found 2.5)"]),
        (
            {"guard": {"max_removed_share": "much"}},
            ["guard.max_removed_share: must be a number (found 'much')"],
        ),
        (
            {"guard": {"max_removed_share": True}},
            ["guard.max_removed_share: must be a number (found true)"],
        ),
        (
            {"guard": {"max_removed_share": "0.5"}},
            ["guard.max_removed_share: must be a number (found '0.5'). Remove the quotes"],
        ),
        ({"guard": {"min_audience_rows": True}}, ["guard.min_audience_rows: must be a whole number"]),
        ({"guard": {"max_removed_share": -1}}, ["guard.max_removed_share: must be at least 0 (found -1)"]),
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
        ("just words", "must hold keys and values"),
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


@pytest.mark.parametrize("reference", ["env:NOT_SET", "file:key"])
def test_the_line_break_after_a_credential_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reference: str
) -> None:
    """Whoever fills a variable from a file leaves one there, and no header carries it."""
    monkeypatch.setenv("NOT_SET", "pk_1\r\n")
    (tmp_path / "key").write_bytes(b"pk_1\r\n")
    assert resolve(reference, file=tmp_path / "x.yml", key="k", root=tmp_path) == "pk_1"


def test_a_variable_that_holds_nothing_but_a_line_break_is_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOT_SET", "\n")
    with pytest.raises(SecretError, match="the environment variable NOT_SET is not set. Set NOT_SET"):
        resolve("env:NOT_SET", file=tmp_path / "x.yml", key="k", root=tmp_path)


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


@pytest.mark.parametrize(("document", "words"), [
    ({"egress": {"hosts": "foo.com"}}, "egress.hosts: must be a list, in [brackets] (found 'foo.com')"),
    ({"egress": {"hosts": []}}, "egress.hosts: must have 1 or more entries"),
    ({"egress": {"hosts": ["https://foo.com"]}}, "egress.hosts.0: must be a host"),
    ({"egress": {"allow_private": ["10.0.0"]}}, "egress.allow_private.0: must be a network, such as `10.20.0.0/16` or `fd00:1::/32` (found '10.0.0')"),
    ({"egress": {"allow_private": [10]}}, "egress.allow_private.0: must be a network"),
    ({"egress": {"ca_bundle": "certs/none.pem"}}, "egress.ca_bundle: there is no file `certs/none.pem`"),
    ({"warehouse": {"memory_limit": "lots"}}, "warehouse.memory_limit: must be a number and its unit, such as `2GB` or `1.5GiB` (found 'lots')"),
    ({"warehouse": {"memory_limit": 2}}, "warehouse.memory_limit: must be a number and its unit"),
    ({"warehouse": {"path": ""}}, "warehouse.path: must not be blank"),
    ({"warehouse": None}, "warehouse: must hold keys and values (found nothing)"),
    ({"warehouse": {"wait_seconds": "long"}}, "warehouse.wait_seconds: must be a number (found 'long')"),
    ({"sandbox_url": "not a url"}, "sandbox_url: must be an address, such as `http://127.0.0.1:8765` (found 'not a url')"),
    ({"sandbox_url": "http://h:99999"}, "sandbox_url: must be an address"),
    ({"sandbox_url": "http://h/?a=b"}, "sandbox_url: must be an address"),
    ({1: "x"}, "1: is no key: keys are text (found 1)"),
    ({"dbt": {"project_dir": "dbtx"}}, "dbt.project_dir: there is no folder `dbtx`"),
])  # fmt: skip
def test_a_wrong_project_is_refused_with_key_and_fix(
    world: World, document: dict[str, object], words: str
) -> None:
    (world.root / "activations/project.yml").write_text(yaml.safe_dump(document))
    text = problem(world)
    assert f"project.yml: {words}" in text, text


@pytest.mark.parametrize("limit", ["2GB", "1.5 gib", "500MB", "80%", "1G"])
def test_a_memory_limit_is_what_duckdb_reads(world: World, limit: str) -> None:
    (world.root / "activations/project.yml").write_text(
        yaml.safe_dump({"warehouse": {"memory_limit": limit}})
    )
    with open_warehouse(load_project(world.root)).write() as session:
        assert session.rows("select 1") == [(1,)]


def test_a_sandbox_that_cannot_be_reached_by_its_address_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("not a url", ""):
        monkeypatch.setenv("ACTIVATIONS_SANDBOX_URL", address)
        text = problem(world)
        assert "variable ACTIVATIONS_SANDBOX_URL: must be an address" in text and repr(address) in text


def test_a_file_of_comments_is_an_empty_one(world: World) -> None:
    """Every key of project.yml has a default; a sync has none for its audience, and accounts are needed."""
    project = world.root / "activations/project.yml"
    for text in ("", "# nothing to say\n"):
        project.write_text(text)
        assert load_project(world.root).settings.warehouse.type == "duckdb"
    world.sync_file.write_text("# later\n")
    assert "people.yml: audience: is missing. Add `audience:`" in problem(world)
    (world.root / "activations/destinations.yml").write_text("# later\n")
    assert "destinations.yml: must hold exactly one key, `destinations`" in problem(world)


@pytest.mark.parametrize(("change", "words"), [
    ({"url": "http://hooks.example.com"}, "destinations.hook.url: must be `https://host/path`"),
    ({"url": " "}, "destinations.hook.url: must not be blank"),
    ({"concurrency": 0}, "destinations.hook.concurrency: must be at least 1 (found 0)"),
    ({"rate_limit": 0}, "destinations.hook.rate_limit: must be more than 0 (found 0)"),
    ({"compress": "zip"}, "destinations.hook.compress: must be 'gzip' (found 'zip')"),
])  # fmt: skip
def test_a_wrong_value_of_an_account_is_said_plainly(
    world: World, change: dict[str, object], words: str
) -> None:
    world.configure_account(**change)
    assert words in problem(world)


def _send_to_klaviyo(world: World, other: dict[str, object], **people: object) -> None:
    """Two syncs, `people` and `others`; the same list unless they say otherwise."""
    accounts = {
        name: {"kind": "klaviyo", "environment": "sandbox", "api_key": key}
        for name, key in [("one", "env:KEY_A"), ("same", "env:KEY_A"), ("two", "env:KEY_B")]
    }
    file = world.root / "activations/destinations.yml"
    file.write_text(yaml.safe_dump({"destinations": accounts}))
    world.configure(destination="one", target={"list_id": "L1"}, **people)
    document = yaml.safe_load(world.sync_file.read_text())
    world.sync_file.with_name("others.yml").write_text(yaml.safe_dump(document | other))


@pytest.mark.parametrize(("other", "words"), [
    ({}, ["people.yml", "target.list_id", "others.yml goes to `L1` too", "unite the segments in one model"]),
    ({"mode": "upsert"}, ["target.list_id", "others.yml goes to `L1` too", "a mirror removes"]),
    ({"destination": "same"}, ["target.list_id", "others.yml goes to `L1` too"]),
    ({"target": {"list_id": "L1", "subscribe": False}}, ["target.list_id", "others.yml"]),
])  # fmt: skip
def test_two_syncs_that_would_remove_each_others_people_are_refused(
    world: World, other: dict[str, object], words: list[str]
) -> None:
    _send_to_klaviyo(world, other)
    text = problem(world)
    assert all(word in text for word in words), text


@pytest.mark.parametrize("other", [{"target": {"list_id": "L2"}}, {"destination": "two"}])
def test_two_syncs_to_two_places_are_two_syncs(world: World, other: dict[str, object]) -> None:
    _send_to_klaviyo(world, other)
    assert set(load_project(world.root).syncs) == {"people", "others"}


def test_two_upserts_may_share_a_place_while_they_agree_on_its_fields(world: World) -> None:
    _send_to_klaviyo(world, {"fields": {"score": "score", "visits": "score"}}, mode="upsert")
    assert set(load_project(world.root).syncs) == {"people", "others"}
    _send_to_klaviyo(world, {"fields": {"score": "event_id"}}, mode="upsert")
    text = problem(world)
    assert "people.yml: fields.score: others.yml maps `score` differently for the same people" in text, text


def test_fields_that_belong_to_the_person_are_mapped_alike_for_every_list_of_the_account(
    world: World,
) -> None:
    elsewhere: dict[str, object] = {"target": {"list_id": "L2"}, "fields": {"score": "event_id"}}
    _send_to_klaviyo(world, elsewhere)
    assert "people.yml: fields.score: others.yml maps `score` differently" in problem(world)
    _send_to_klaviyo(world, elsewhere | {"destination": "two"})
    assert set(load_project(world.root).syncs) == {"people", "others"}


def test_a_receiver_that_keeps_syncs_apart_takes_any_number(world: World) -> None:
    world.sync_file.with_name("others.yml").write_text(world.sync_file.read_text())
    assert set(load_project(world.root).syncs) == {"people", "others"}


def test_a_blank_list_is_no_list(world: World) -> None:
    _send_to_klaviyo(world, {"target": {"list_id": ""}})
    assert "others.yml: target.list_id: must not be blank (found ''). Fill it in" in problem(world)


BROKEN = st.sampled_from(
    [None, "", " ", "x y", "é" * 70, 0, -1, 7.5, True, [], [1], {}, {"a": 1}, {"column": None}]
)
PLACES = [
    ("syncs/people.yml", ["audience", "destination", "channel", "purpose", "mode", "identifiers", "fields", "target",
                          "occurrence", "holdout", "guard", "schedule", "owner", "description"]),
    ("destinations.yml", ["kind", "environment", "rate_limit", "concurrency", "batch_rows", "compress", "url",
                          "signing_secret"]),
    ("project.yml", ["warehouse", "journal", "dbt", "plan", "egress", "sandbox_url"]),
]  # fmt: skip


@given(
    place=st.sampled_from([(file, key) for file, keys in PLACES for key in keys]),
    value=BROKEN,
    under=st.sampled_from(
        ["", "score", "email", "path", "hosts", "allow_private", "proxy", "floor_rows", "dsn"]
    ),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
def test_no_message_speaks_of_the_library(
    world: World, place: tuple[str, str], value: object, under: str
) -> None:
    """Whatever stands anywhere, the message is about the file and in words of ours."""
    file = world.root / "activations" / place[0]
    before = file.read_text()
    document = yaml.safe_load(before)
    inner = document["destinations"]["hook"] if "destinations" in document else document
    inner[place[1]] = {under: value} if under else value
    file.write_text(yaml.safe_dump(document))
    try:
        load_project(world.root)
    except ConfigError as error:
        text = str(error)
        assert file.name in text and place[1] in text, text
        assert not re.search(
            r"[Ii]nput|String|Dictionary|validation|instance|lax|constrained|Mapping|\[key\]", text
        ), text
    finally:
        file.write_text(before)

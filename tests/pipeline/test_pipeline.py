"""The main job on the demo's data: raw tables → dbt → plan → sandbox, through the command line, as people use it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.conftest import BuiltProject

SYNCS = {
    "basket_reminder__twilio",
    "coupon_responders__webhook",
    "loyal_customers__klaviyo",
    "win_back__meta",
}
STATUS_KEYS = {
    "sync", "audience", "destination", "channel", "audience_size", "ineligible", "held_out", "invalid", "added", "changed",
    "removed", "delivered", "rejected", "in_doubt", "run_status", "finished_at",
}  # fmt: skip


def status(project: BuiltProject) -> dict[str, Any]:
    return {run["sync"]: run for run in json.loads(project.activations("status", "--json").stdout)}


def plan(project: BuiltProject, sync: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(project.activations("plan", sync, "--json").stdout)
    return found[0]


def test_everybody_planned_is_delivered_and_the_numbers_add_up(synced: BuiltProject) -> None:
    runs = status(synced)
    assert set(runs) == SYNCS
    for run in runs.values():
        assert set(run) >= STATUS_KEYS
        assert run["run_status"] == "succeeded"
        assert run["delivered"] == run["added"] > 10
        in_scope = run["added"] + run["changed"] + run["unchanged"] + run["waiting"]
        assert run["audience_size"] == run["ineligible"] + run["held_out"] + run["invalid"] + in_scope
        assert run["ineligible"] == sum(run["ineligible_by_reason"].values()) > 0


def test_the_other_side_holds_what_was_delivered(synced: BuiltProject) -> None:
    from activations.sandbox.server import Sandbox

    sandbox = Sandbox(synced.var / "sandbox")
    held = json.dumps(sandbox.summary())
    sandbox.state.close()
    for run in status(synced).values():
        assert re.search(rf"\b{run['delivered']}\b", held), run["sync"]


def test_a_second_run_sends_nothing(built_project: BuiltProject) -> None:
    built_project.activations("sync")
    built_project.activations("sync")
    for run in status(built_project).values():
        assert (run["added"], run["changed"], run["removed"], run["delivered"], run["requests"]) == (
            0,
            0,
            0,
            0,
            0,
        )
    built_project.dbt("build", "--quiet", "--exclude", "resource_type:test", "resource_type:unit_test")
    built_project.activations("sync")
    assert all(run["delivered"] == 0 for run in status(built_project).values()), (
        "a rebuild alone changes nobody"
    )


def test_edited_withdrawn_and_deleted_people_are_changed_removed_and_removed(
    built_project: BuiltProject,
) -> None:
    built_project.activations("sync", "loyal_customers__klaviyo")
    edited, withdrawn, deleted = (row[0] for row in built_project.query(
        """select s.primary_key from activation.sync_snapshot s join profiles.dim_profiles p on p.person_id = s.primary_key
           join (select person_id from identity.identity_map where identifier_type = 'contact' and is_current
                 group by person_id having count(*) = 1) single on single.person_id = s.primary_key
           where s.sync = 'loyal_customers__klaviyo' order by 1 limit 3"""
    ))  # fmt: skip
    contact = "(select identifier from identity.identity_map where identifier_type = 'contact' and is_current and person_id = '{}')"
    built_project.execute(
        f"update raw.crm_contacts set first_name = 'Renamed', updated_at = timestamp '2017-08-31' where source_system || ':' || contact_id = {contact.format(edited)}",
        f"""insert into raw.consent_events by name
            select 'withdrawal-1' as event_id, 'email' as subject_type, email as subject, 'email' as channel, 'marketing' as purpose,
                   'withdrawn' as action, 'consent' as legal_basis, 'US-NY' as jurisdiction, timestamp '2017-08-31' as captured_at,
                   timestamp '2017-08-31' as recorded_at, 'form' as source, 'v1' as policy_version, 'p' as proof, true as _generated
            from profiles.dim_profiles where person_id = '{withdrawn}'""",
        f"delete from raw.crm_contacts where source_system || ':' || contact_id = {contact.format(deleted)}",
    )
    built_project.dbt("build", "--quiet", "--exclude", "resource_type:test", "resource_type:unit_test")
    seen = plan(built_project, "loyal_customers__klaviyo")
    assert (seen["added"], seen["changed"], seen["removed"], seen["held_reason"]) == (0, 1, 2, None)
    verdicts = {
        row["sync"]: row
        for row in json.loads(built_project.activations("explain", withdrawn, "--json").stdout)
    }
    assert verdicts["loyal_customers__klaviyo"]["verdict"] == "ineligible:consent"
    assert verdicts["loyal_customers__klaviyo"]["held_by_destination"]
    built_project.activations("sync", "loyal_customers__klaviyo")
    assert status(built_project)["loyal_customers__klaviyo"]["delivered"] == 3
    assert plan(built_project, "loyal_customers__klaviyo")["removed"] == 0


def test_a_suppression_reaches_the_destination_without_a_build(built_project: BuiltProject) -> None:
    built_project.activations("sync", "win_back__meta")
    [(person, email)] = built_project.query(
        """select p.person_id, p.email from activation.sync_snapshot s join profiles.dim_profiles p on p.person_id = s.primary_key
           where s.sync = 'win_back__meta' and p.email is not null order by 1 limit 1"""
    )
    built_project.activations("suppress", "--reason", "objection", stdin=f"{email}\n")
    assert plan(built_project, "win_back__meta")["removed"] == 1
    out = built_project.activations("explain", "--identifier", "--json", stdin=f"{email}\n").stdout
    assert {row["person"] for row in json.loads(out)} == {person}
    assert {row["verdict"] for row in json.loads(out) if row["sync"] == "win_back__meta"} == {
        "ineligible:suppressed"
    }


def test_nobody_can_be_read_in_what_is_kept_or_shown(built_project: BuiltProject) -> None:
    """Every e-mail, phone and last name of the demo, searched in ledger, journal, logs and output."""
    shown = (
        built_project.activations("sync").stdout
        + built_project.activations("plan").stdout
        + built_project.activations("status", "--json").stdout
    )
    people = built_project.query("select email, phone, last_name from profiles.dim_profiles")
    secrets = {value for row in people for value in row if value and len(value) > 6}
    assert len(secrets) > 200
    for table in ("sync_runs", "sync_changelog", "sync_snapshot", "rejected_records"):
        shown += repr(built_project.query(f"select * from activation.{table}"))
    kept = b"".join(path.read_bytes() for path in built_project.var.glob("journal.sqlite3*"))
    found = [s for s in secrets if s in shown or s.encode() in kept]
    assert not found, f"{len(found)} values were found"


def test_exposures_say_what_the_syncs_say(synced: BuiltProject) -> None:
    assert "up to date" in synced.activations("exposures", "--check").stdout


def test_the_state_folder_is_for_its_owner_only(synced: BuiltProject) -> None:
    def mode(path: Path) -> int:
        return path.stat().st_mode & 0o777

    assert mode(synced.var / "journal.sqlite3") == 0o600
    assert mode(synced.var / "hash.key") == 0o600
    assert mode(synced.var / "plans") == 0o700

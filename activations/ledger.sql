-- The warehouse's own record of what every destination acknowledged. Keys, fingerprints and counts only.
-- Times are UTC. Written by the engine alone, read by dbt as the source `activation`.

create schema if not exists activation;

-- One row per run of a sync.
create table if not exists activation.sync_runs (
    run_id varchar not null, sync varchar not null, audience varchar not null, destination varchar not null,
    channel varchar not null, purpose varchar not null, mode varchar not null, run_status varchar not null,
    plan_id varchar not null, audience_size bigint not null, ineligible bigint not null, held_out bigint not null,
    invalid bigint not null, added bigint not null, changed bigint not null, removed bigint not null,
    unchanged bigint not null, waiting bigint not null, delivered bigint not null, rejected bigint not null,
    retryable bigint not null, in_doubt bigint not null, suppressed bigint not null, requests bigint not null,
    held_reason varchar, error varchar, started_at timestamp not null, finished_at timestamp
);

-- One row per attempt at a row, append-only; unique by (journal_id, seq, position).
create table if not exists activation.sync_changelog (
    journal_id varchar not null, seq bigint not null, position bigint not null, run_id varchar not null,
    sync varchar not null, channel varchar not null, purpose varchar not null, primary_key varchar not null,
    operation varchar not null, outcome varchar not null, reason varchar, payload_hash varchar,
    recorded_at timestamp not null
);

-- One row per row that a destination holds by its own word; unique by (sync, primary_key, identity).
create table if not exists activation.sync_snapshot (
    sync varchar not null, primary_key varchar not null, identity varchar not null, payload_hash varchar,
    destination_key varchar, acked_run_id varchar not null, acked_at timestamp not null,
    sieve bigint,                        -- hash of the audience's row as it was read; see planning/sieve.py
    field_marks integer[]                -- sixteen bits of the mapping and of each field; see planning/marks.py
);

-- One row per row that a destination refused and that nobody has corrected yet.
create table if not exists activation.rejected_records (
    sync varchar not null, primary_key varchar not null, identity varchar not null, reason varchar,
    first_seen_at timestamp not null, last_seen_at timestamp not null, attempts bigint not null
);

-- Where each sync points to: the snapshot speaks of this place and of no other.
create table if not exists activation.sync_places (
    sync varchar not null, place varchar not null
);

-- What a plan of each sync was made of after which the snapshot was what it should be, and what it finds: while these
-- digests and the position stay, there is nothing to send. Losing a row costs time, never truth. See planning/inputs.py.
create table if not exists activation.sync_inputs (
    sync varchar not null, ledger_position varchar not null, snapshot_rows bigint not null,
    audience varchar not null, surroundings varchar not null,   -- digests
    finding varchar not null                                    -- JSON
);

-- The last outcome of each journal that is contained in the tables above.
create table if not exists activation.merge_mark (
    sync varchar not null, journal_id varchar not null, seq bigint not null
);

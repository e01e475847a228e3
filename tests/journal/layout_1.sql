-- A journal as version 1 wrote it.

-- The journal: the truth about attempts. It holds keys, keyed digests and counts, never a payload or an address.
-- Times are ISO 8601, UTC, without zone.

create table if not exists meta (key text primary key, value text not null) strict;

-- One line per sync. A higher epoch fences every engine that still carries a lower one.
create table if not exists lease (
    sync text primary key,
    epoch integer not null,
    owner text not null,
    acquired_at text not null,
    not_before text                      -- a committed Retry-After of the destination
) strict;

create table if not exists run (
    run_id text primary key,
    sync text not null,
    epoch integer not null,
    status text not null,
    content_hash text,                   -- what an approval binds to
    plan_path text,
    expires_at text,
    summary text not null,               -- SyncRun.summary() as JSON: counts and times
    in_ledger integer not null default 0,
    created_at text not null,
    finished_at text
) strict;
create index if not exists run_by_sync on run (sync, created_at);

-- in_flight: the intent is committed, the outcome is not. recorded: outcome known, not yet in the ledger.
-- merged: in the ledger. released: nothing was sent.
create table if not exists batch (
    batch_id integer primary key autoincrement,
    sync text not null,
    run_id text not null references run,
    first integer not null,
    count integer not null,
    state text not null check (state in ('in_flight', 'recorded', 'merged', 'released')),
    epoch integer not null,
    claimed_at text not null,
    send_by text not null,
    recorded_at text,
    outcome_seq integer unique,
    tally text,                          -- JSON: outcome → rows, kept after the merge
    destination_keys blob                -- zlib of a JSON list in the order of the span
) strict;
create index if not exists batch_open on batch (sync, state) where state in ('in_flight', 'recorded');

-- Rows that were not delivered, or were with a remark; written with the intent for rows that may not be sent.
create table if not exists row_outcome (
    batch_id integer not null references batch,
    position integer not null,
    outcome text not null,
    reason text,
    primary key (batch_id, position)
) strict, without rowid;

create table if not exists open_row (
    sync text not null,
    row_key text not null,
    identity text not null,
    state text not null check (state in ('in_doubt', 'settling', 'rejected')),
    operation text not null,
    payload_hash text,
    destination_key text,
    sealed blob,                         -- identifiers, encrypted, only where the destination must be asked by them
    maybe integer not null,
    reason text,
    attempts integer not null,
    first_seen_at text not null,
    last_seen_at text not null,
    settle_until text,
    primary key (sync, row_key, identity)
) strict, without rowid;

-- A message goes through `in_flight` once. Nothing automatic leads from in_flight or unknown back to pending.
create table if not exists message (
    message_key text primary key,
    sync text not null,
    batch_id integer not null references batch,
    state text not null check (state in ('pending', 'in_flight', 'sent', 'rejected', 'unknown')),
    provider_id text,
    reason text,
    claimed_at text not null
) strict, without rowid;

create table if not exists suppression (
    seq integer primary key autoincrement,
    digest text not null,
    channel text not null,               -- or 'all'
    reason text not null,
    source text not null,
    committed_at text not null
) strict;
create index if not exists suppression_by_digest on suppression (digest);

create table if not exists approval (
    sync text not null,
    content_hash text not null,
    approved_by text not null,
    note text not null,
    approved_at text not null,
    expires_at text not null,
    used_by_run text,
    primary key (sync, content_hash, approved_at)
) strict, without rowid;

-- Append-only; each line is chained to the one before it.
create table if not exists audit (
    seq integer primary key autoincrement,
    at text not null,
    event text not null,
    previous_hash text not null,
    hash text not null
) strict;

pragma user_version = 1;
insert into meta values ('journal_id', 'old'), ('key_check', 'c');
insert into lease values ('people', 3, 'host:0', '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000');
insert into run values ('run-0', 'people', 3, 'running', null, 'run-0.parquet', null, '{}', 0, '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000');
insert into batch values (5, 'people', 'run-0', 0, 4, 'recorded', 3, '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000', 7, '{}', null);
insert into batch values (6, 'people', 'run-0', 4, 1, 'in_flight', 3, '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000', null, null, null, null);
insert into message values
    ('sent', 'people', 5, 'sent', null, null, '2026-01-05T12:00:00.000000'),
    ('refused', 'people', 5, 'rejected', null, null, '2026-01-05T12:00:00.000000'),
    ('doubt', 'people', 5, 'unknown', null, null, '2026-01-05T12:00:00.000000'),
    ('flight', 'people', 6, 'in_flight', null, null, '2026-01-05T12:00:00.000000');
insert into open_row values
    ('people', 'p1', 'i1', 'rejected', 'added', 'h', null, null, 0, 'bad', 1, '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000', null),
    ('people', 'p2', 'i2', 'in_doubt', 'added', 'h', null, null, 1, 'timeout', 1, '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000', '2026-01-05T12:00:00.000000');
insert into suppression (digest, channel, reason, source, committed_at) values ('d1', 'email', 'stop', 'test', '2026-01-05T12:00:00.000000');
insert into audit (at, event, previous_hash, hash) values
    ('2026-01-05T12:00:00.000000', '{"channel": "email", "event": "suppressed"}', '', '625d0871f68744bd213024f681ee7f0dc56063fcd0aaa8e51a6fc23222f2c083'),
    ('2026-01-05T12:00:00.000000', '{"channel": "email", "event": "suppressed"}', '625d0871f68744bd213024f681ee7f0dc56063fcd0aaa8e51a6fc23222f2c083', 'b99db6d49c8609b26fdeeae1beb342778a3bc1aa04a1da0108e1f089c77e3e7d');

-- The journal: the truth about attempts. It holds keys, keyed digests and counts, never a payload or an address.
-- Times are ISO 8601, UTC, without zone.

create table meta (key text primary key, value text not null)$strict;

-- Numbers without a gap, drawn in the transaction that uses them. Whoever draws one goes before whoever draws the next.
-- outcome: of a recorded batch. suppression: how often suppressions changed. audit: lines of the trail.
create table counter (name text primary key, value integer not null)$strict;
insert into counter values ('outcome', 0), ('suppression', 0), ('audit', 0);

-- One line per sync. A higher epoch fences every engine that still carries a lower one.
create table lease (
    sync text primary key,
    epoch integer not null,
    owner text not null,                 -- host and process
    until $moment                        -- on a server: free after this, or when null; a file has the kernel's lock
)$strict;

-- How an account at a destination may be called; all syncs and processes that use it share this.
create table account (
    account text primary key,
    not_before text,                     -- a committed Retry-After
    next_slot text                       -- when the next request has its place
)$strict;

create table run (
    run_id text primary key,
    sync text not null,
    epoch integer not null,
    owner text not null,                 -- host and process
    status text not null,
    content_hash text,                   -- what an approval binds to
    plan_path text,
    summary text not null,               -- SyncRun.summary() as JSON: counts and times
    in_ledger integer not null default 0,
    created_at text not null,
    finished_at text
)$strict;
create index run_by_sync on run (sync, created_at);

-- in_flight: the intent is committed, the outcome is not. recorded: outcome known, not yet in the ledger.
-- merged: in the ledger. released: nothing was sent.
create table batch (
    batch_id $number,
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
    destination_keys $bytes              -- zlib of a JSON list in the order of the span
)$strict;
create index batch_open on batch (sync, state) where state in ('in_flight', 'recorded');
create index batch_by_outcome on batch (sync, outcome_seq);
create index batch_by_run on batch (run_id);

-- Rows that were not delivered, or were with a remark; written with the intent for rows that may not be sent.
create table row_outcome (
    batch_id $reference not null references batch,
    position integer not null,
    outcome text not null,
    reason text,
    primary key (batch_id, position)
)$keyed;

create table open_row (
    sync text not null,
    row_key text not null,
    identity text not null,
    state text not null check (state in ('in_doubt', 'settling', 'rejected')),
    operation text not null,
    payload_hash text,
    destination_key text,
    sealed $bytes,                       -- identifiers, encrypted, only where the destination must be asked by them
    maybe integer not null,
    reason text,
    attempts integer not null,
    first_seen_at text not null,
    last_seen_at text not null,
    settle_until text,
    message_key text,                    -- of a message: its door
    primary key (sync, row_key, identity)
)$keyed;

-- A message goes through `in_flight` once. Nothing automatic leads from in_flight or unknown back to pending.
-- replaced: unknown for ever; two people had the occurrence sent again. Its key ends in a number, the occurrence's is free.
create table message (
    message_key text primary key,
    sync text not null,
    batch_id $reference not null references batch,
    state text not null check (state in ('pending', 'in_flight', 'sent', 'rejected', 'unknown', 'replaced')),
    provider_id text,
    reason text,
    claimed_at text not null
)$keyed;

create table suppression (
    seq $number,
    digest text not null,
    named text not null,                 -- digest of what was named when this was said
    channel text not null,               -- or 'all'
    reason text not null,
    source text not null,
    committed_at text not null
)$strict;
create index suppression_by_digest on suppression (digest);

create table approval (
    sync text not null,
    content_hash text not null,
    approved_by text not null,
    note text not null,
    approved_at text not null,
    expires_at text not null,
    used_by_run text,
    primary key (sync, content_hash, approved_at)
)$keyed;

-- Append-only; each line is chained to the one before it.
create table audit (
    seq integer primary key,
    at text not null,
    event text not null,
    previous_hash text not null,
    hash text not null
)$strict;

-- Layout 1 → 2. A Retry-After was kept per sync and is now kept per account, whose name layout 1 does not know: it lasts an
-- hour at most and is asked for again.

create table counter (name text primary key, value integer not null) strict;
insert into counter values
    ('outcome', (select coalesce(max(outcome_seq), 0) from batch)),
    ('suppression', 0),
    ('audit', (select coalesce(max(seq), 0) from audit));

create table account (account text primary key, not_before text, next_slot text) strict;
alter table lease drop column not_before;
alter table lease drop column acquired_at;
alter table lease add column until text;

alter table run drop column expires_at;
alter table run add column owner text not null default 'unknown';
create index batch_by_outcome on batch (sync, outcome_seq);
create index batch_by_run on batch (run_id);

alter table open_row add column message_key text;
update open_row set message_key = '' where sync in (select sync from message);

-- A check can only be changed with its table.
alter table message rename to message_before;
create table message (
    message_key text primary key,
    sync text not null,
    batch_id integer not null references batch,
    state text not null check (state in ('pending', 'in_flight', 'sent', 'rejected', 'unknown', 'replaced')),
    provider_id text,
    reason text,
    claimed_at text not null
) strict, without rowid;
insert into message select * from message_before;
drop table message_before;

alter table audit rename to audit_before;
create table audit (
    seq integer primary key,
    at text not null,
    event text not null,
    previous_hash text not null,
    hash text not null
) strict;
insert into audit select * from audit_before;
drop table audit_before;

-- The sandbox's memory. Each stand-in owns the tables that carry its name.

create table if not exists klaviyo_lists (
    list_id text primary key,
    name    text not null
);

create table if not exists klaviyo_profiles (
    profile_id   text primary key,
    email        text unique,
    phone_number text,
    external_id  text,
    attributes   text not null default '{}',
    consent      text not null default 'NEVER_SUBSCRIBED',
    consented_at text,
    source       text,
    updated_at   text not null
);
create index if not exists klaviyo_profiles_external_id on klaviyo_profiles (external_id);
create index if not exists klaviyo_profiles_phone on klaviyo_profiles (phone_number);

create table if not exists klaviyo_members (
    list_id    text not null,
    profile_id text not null,
    joined_at  text not null,
    primary key (list_id, profile_id)
) without rowid;

create table if not exists klaviyo_jobs (
    job_id     text primary key,
    created_at real not null,
    total      integer not null,
    lists      text not null
);

create table if not exists klaviyo_job_profiles (
    job_id     text not null,
    position   integer not null,
    profile_id text not null,
    primary key (job_id, position)
) without rowid;

create table if not exists klaviyo_job_errors (
    job_id   text not null,
    position integer not null,
    error    text not null,
    primary key (job_id, position)
) without rowid;

create table if not exists twilio_messages (
    sid               text primary key,
    sent_at           real not null,
    recipient         text not null,
    sender            text,
    messaging_service text,
    body              text not null,
    status            text not null
);
create index if not exists twilio_messages_recipient on twilio_messages (recipient);

create table if not exists twilio_callbacks (
    seq       integer primary key,
    url       text not null,
    signature text not null,
    body      text not null
);

create table if not exists twilio_opt_outs (phone text primary key);

create table if not exists meta_audiences (
    audience_id text primary key,
    name        text not null
);

create table if not exists meta_members (
    audience_id text not null,
    extern_id   text not null,
    match_keys  text not null,
    added_at    real not null,
    primary key (audience_id, extern_id)
) without rowid;

create table if not exists meta_sessions (
    audience_id  text not null,
    session_id   text not null,
    num_received integer not null,
    num_invalid  integer not null,
    is_finished  integer not null,
    started_at   real not null,
    primary key (audience_id, session_id)
) without rowid;

create table if not exists webhook_deliveries (
    message_id  text primary key,
    received_at real not null,
    sync        text not null,
    changes     integer not null,
    answer      text not null
);

create table if not exists webhook_records (
    sync        text not null,
    key         text not null,
    identifiers text not null,
    fields      text not null,
    received_at real not null,
    deliveries  integer not null,
    primary key (sync, key)
) without rowid;

create table if not exists requests (
    request_id   integer primary key autoincrement,
    at           real not null,
    vendor       text not null,
    method       text not null,
    path         text not null,
    status       integer not null,
    fault        text,
    milliseconds real not null
);
create index if not exists requests_vendor on requests (vendor, status);

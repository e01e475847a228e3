-- What was really sent, by providers' word and by our own ledger; a send in doubt counts, since it may have arrived.
-- Only append syncs send messages: a member added to a list is not a message.
with events as (

    select * from {{ ref('stg_messaging__events') }}
    where event_type = 'sent'

),

identifiers as (

    select * from {{ ref('fct_profile_identifiers') }}

),

changelog as (

    select * from {{ source('activation', 'sync_changelog') }}
    where outcome in ('delivered', 'unknown') and operation <> 'removed'

),

append_runs as (

    select run_id from {{ source('activation', 'sync_runs') }}
    where mode = 'append'

),

received as (

    select
        identifiers.person_id,
        events.channel,
        events.message_id,
        min(events.occurred_at) as sent_at
    from events
    inner join identifiers
        on
            events.recipient = identifiers.identifier
            and identifiers.identifier_type = case events.channel when 'sms' then 'phone' else 'email' end
    group by identifiers.person_id, events.channel, events.message_id

),

sent as (

    select
        {{ dbt.split_part('changelog.primary_key', 'chr(31)', 1) }} as person_id,
        changelog.channel,
        changelog.sync || ':' || changelog.primary_key as message_id,
        -- Attempts on one message are one message.
        max(changelog.recorded_at) as sent_at
    from changelog
    inner join append_runs on changelog.run_id = append_runs.run_id
    group by changelog.sync, changelog.primary_key, changelog.channel

),

final as (

    select person_id, channel, message_id, sent_at from received
    union all
    select person_id, channel, message_id, sent_at from sent

)

select * from final

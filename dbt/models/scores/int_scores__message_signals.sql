-- Mail proxies open and link scanners click: only what a person did counts. What somebody answers counts for whoever
-- the address belongs to today.
with events as (

    select * from {{ ref('stg_messaging__events') }}
    where not coalesce(is_machine, false)

),

identifiers as (

    select * from {{ ref('fct_profile_identifiers') }}

),

named as (

    select
        case when channel = 'sms' then 'phone' else 'email' end as identifier_type,
        recipient,
        case event_type
            when 'opened' then 'message_opened'
            when 'clicked' then 'message_clicked'
            when 'unsubscribed' then 'unsubscribed'
            when 'stop' then 'unsubscribed'
            when 'bounced' then 'bounced'
            when 'complained' then 'complained'
        end as signal,
        occurred_at
    from events

),

final as (

    select
        identifiers.person_id,
        named.signal,
        named.occurred_at,
        1 as occurrences
    from named
    inner join identifiers
        on
            named.identifier_type = identifiers.identifier_type
            and named.recipient = identifiers.identifier
    where named.signal is not null

)

select * from final

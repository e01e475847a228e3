with message_events as (

    select * from {{ ref('stg_messaging__events') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

reached as (

    select
        message_events.channel,
        message_events.recipient,
        max(case when message_events.event_type = 'bounced' then message_events.occurred_at end) as bounced_at,
        max(case
            when message_events.event_type in ('delivered', 'opened', 'clicked') then message_events.occurred_at
        end) as delivered_at
    from message_events
    cross join clock
    where message_events.occurred_at <= clock.as_of
        and message_events.recipient is not null
    group by message_events.channel, message_events.recipient

),

final as (

    select
        case channel when 'sms' then 'phone' else 'email' end as identifier_type,
        recipient as address,
        bounced_at
    from reached
    where bounced_at is not null
        and (delivered_at is null or delivered_at <= bounced_at)

)

select * from final

-- Every source of "no" in one table. The earliest of each reason is kept: that is since when the person must not be
-- reached.
with suppression_list as (

    select * from {{ ref('stg_suppression__list') }}

),

messages as (

    select * from {{ ref('stg_messaging__events') }}

),

refusals as (

    select * from {{ ref('int_consent__standing_refusals') }}

),

owners as (

    select * from {{ ref('int_consent__subject_owners') }}

),

channels as (

    select channel from {{ ref('channel_purposes') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

listed as (

    select
        owners.person_id,
        suppression_list.channel,
        suppression_list.reason,
        suppression_list.source,
        suppression_list.suppressed_at
    from suppression_list
    inner join owners
        on suppression_list.identifier_type = owners.subject_type and suppression_list.identifier = owners.subject

),

feedback as (

    select
        channel,
        case when channel = 'sms' then 'phone' else 'email' end as subject_type,
        recipient as subject,
        case event_type
            when 'complained' then 'complaint'
            when 'unsubscribed' then 'unsubscribe'
            when 'stop' then 'stop'
        end as reason,
        occurred_at
    from messages
    where event_type in ('complained', 'unsubscribed', 'stop')

),

answered as (

    select
        owners.person_id,
        feedback.channel,
        feedback.reason,
        'message_events' as source,
        feedback.occurred_at as suppressed_at
    from feedback
    inner join owners on feedback.subject_type = owners.subject_type and feedback.subject = owners.subject

),

-- A bounce is about the address, not the person: it ends when the person has another one.
bounced as (

    select
        profiles.person_id,
        messages.channel,
        'bounce' as reason,
        'message_events' as source,
        messages.occurred_at as suppressed_at
    from messages
    inner join profiles
        on messages.recipient = case when messages.channel = 'sms' then profiles.phone else profiles.email end
    where messages.event_type = 'bounced'

),

refused as (

    select
        person_id,
        channel,
        case action when 'erased' then 'erasure' else 'objection' end as reason,
        'consent_events' as source,
        refused_at as suppressed_at
    from refusals

),

unioned as (

    select * from listed
    union all
    select * from answered
    union all
    select * from bounced
    union all
    select * from refused

),

-- A channel nobody can read suppresses all of them.
scoped as (

    select
        unioned.person_id,
        coalesce(channels.channel, 'all') as channel,
        coalesce(unioned.reason, 'unspecified') as reason,
        unioned.source,
        unioned.suppressed_at
    from unioned
    left join channels on unioned.channel = channels.channel

),

by_channel as (

    select
        scoped.person_id,
        channels.channel,
        scoped.reason,
        scoped.source,
        scoped.suppressed_at,
        row_number() over (
            partition by scoped.person_id, channels.channel, scoped.reason
            order by scoped.suppressed_at asc nulls first, scoped.source asc
        ) as age_rank
    from scoped
    inner join channels on scoped.channel in ('all', channels.channel)

),

final as (

    select
        person_id,
        channel,
        reason,
        source,
        suppressed_at
    from by_channel
    where age_rank = 1

)

select * from final

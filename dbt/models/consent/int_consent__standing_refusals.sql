-- An objection to direct marketing (GDPR 21(2)) and an erasure (GDPR 17) are about the person, not about one channel,
-- and no later click lifts them: only somebody who removes the record does. An objection to ads_share alone (a
-- browser's Global Privacy Control) leaves the other purposes untouched.
with events as (

    select * from {{ ref('stg_consent__events') }}
    where action in ('objected', 'erased')

),

owners as (

    select * from {{ ref('int_consent__subject_owners') }}

),

channel_purposes as (

    select * from {{ ref('channel_purposes') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

scoped as (

    select
        owners.person_id,
        events.action,
        case
            when events.action = 'objected' and events.purpose = 'ads_share' then 'ads_share'
            else 'everything'
        end as scope,
        coalesce(least(events.captured_at, events.recorded_at), run_clock.as_of) as refused_at
    from events
    inner join owners on events.subject_type = owners.subject_type and events.subject = owners.subject
    cross join run_clock

),

final as (

    select
        scoped.person_id,
        channel_purposes.channel,
        channel_purposes.purpose,
        scoped.action,
        min(scoped.refused_at) as refused_at
    from scoped
    inner join channel_purposes on scoped.scope in ('everything', channel_purposes.purpose)
    group by scoped.person_id, channel_purposes.channel, channel_purposes.purpose, scoped.action

)

select * from final

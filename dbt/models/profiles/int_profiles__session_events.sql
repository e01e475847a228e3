with web_events as (

    select * from {{ ref('stg_web__events') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

seen as (

    select
        web_events.*,
        lag(web_events.occurred_at) over (
            partition by web_events.anonymous_id
            order by web_events.occurred_at, web_events.event_id
        ) as previous_at
    from web_events
    cross join clock
    where web_events.occurred_at <= clock.as_of
        and web_events.anonymous_id is not null

),

numbered as (

    select
        *,
        sum(case
            when occurred_at <= previous_at + interval '{{ var("session_idle_minutes", 30) }} minutes' then 0
            else 1
        end) over (
            partition by anonymous_id
            order by occurred_at, event_id
            rows unbounded preceding
        ) as session_number
    from seen

),

anchored as (

    select
        *,
        first_value(event_id) over (
            partition by anonymous_id, session_number
            order by occurred_at, event_id
        ) as first_event_id
    from numbered

),

-- The running number shifts when an earlier event arrives late; the first event of a session does not.
final as (

    select
        {{ dbt.hash("anonymous_id || '|' || first_event_id") }} as session_id,
        event_id,
        anonymous_id,
        event_type,
        occurred_at,
        login_email_match_key,
        has_gpc,
        user_agent
    from anchored

)

select * from final

with events as (

    select * from {{ ref('int_profiles__session_events') }}

),

summed as (

    select
        session_id,
        anonymous_id,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as event_count,
        sum(case when event_type = 'product_view' then 1 else 0 end) as product_views,
        sum(case when event_type = 'add_to_cart' then 1 else 0 end) as cart_adds,
        max(case when event_type = 'checkout' then 1 else 0 end) = 1 as has_checkout,
        max(case when has_gpc then 1 else 0 end) = 1 as has_gpc,
        max(case
            when lower(user_agent) like '%bot%' then 1
            when lower(user_agent) like '%crawl%' then 1
            when lower(user_agent) like '%spider%' then 1
            when lower(user_agent) like '%headless%' then 1
            else 0
        end) = 1 as is_bot
    from events
    group by session_id, anonymous_id

),

final as (

    select
        session_id,
        anonymous_id,
        started_at,
        ended_at,
        cast(event_count as integer) as event_count,
        cast(product_views as integer) as product_views,
        cast(cart_adds as integer) as cart_adds,
        has_checkout,
        has_gpc,
        is_bot
        or ended_at > started_at + interval '{{ var("session_max_hours", 8) }} hours' as is_quarantined
    from summed

)

select * from final

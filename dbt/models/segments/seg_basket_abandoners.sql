-- Left something in the cart, and the household has bought nothing within a day. One basket a person, the latest.
{% set settling_hours = 1 -%}
{% set window_days = 7 -%}
with sessions as (

    select * from {{ ref('fct_web_sessions') }}
    where person_id is not null and not is_quarantined

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

transactions as (

    select * from {{ ref('stg_retail__transactions') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

carts as (

    select
        sessions.person_id,
        sessions.session_id,
        sessions.ended_at,
        sessions.cart_adds,
        row_number() over (
            partition by sessions.person_id
            order by sessions.ended_at desc, sessions.session_id desc
        ) as recency
    from sessions
    cross join run_clock
    where
        sessions.cart_adds > 0
        and not sessions.has_checkout
        and sessions.ended_at > {{ dbt.dateadd('day', -window_days, 'run_clock.as_of') }}
        -- The person may still be at it.
        and sessions.ended_at <= {{ dbt.dateadd('hour', -settling_hours, 'run_clock.as_of') }}

),

bought as (

    select distinct carts.session_id
    from carts
    inner join profiles on carts.person_id = profiles.person_id
    inner join transactions
        on
            profiles.household_id = transactions.household_id
            and transactions.ordered_at > carts.ended_at
            and transactions.ordered_at <= {{ dbt.dateadd('day', 1, 'carts.ended_at') }}
    where carts.recency = 1

),

final as (

    select
        carts.person_id,
        carts.session_id as abandoned_session_id,
        carts.ended_at as abandoned_at,
        cast(carts.cart_adds as integer) as cart_items
    from carts
    inner join profiles on carts.person_id = profiles.person_id
    left join bought on carts.session_id = bought.session_id
    where carts.recency = 1 and bought.session_id is null

)

select * from final

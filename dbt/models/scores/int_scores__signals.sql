-- Who objected to marketing is not profiled for it either (GDPR 21(3)): no signals, no score.
with fit as (

    select * from {{ ref('int_scores__fit_signals') }}

),

orders as (

    select * from {{ ref('int_scores__order_signals') }}

),

web as (

    select * from {{ ref('int_scores__web_signals') }}

),

messages as (

    select * from {{ ref('int_scores__message_signals') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

refusals as (

    select distinct person_id from {{ ref('int_consent__standing_refusals') }}
    where purpose = 'marketing'

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

unioned as (

    select person_id, signal, cast(null as timestamp) as occurred_at, 1 as occurrences from fit
    union all
    select person_id, signal, occurred_at, occurrences from orders
    union all
    select person_id, signal, occurred_at, occurrences from web
    union all
    select person_id, signal, occurred_at, occurrences from messages

),

final as (

    select
        unioned.person_id,
        unioned.signal,
        unioned.occurred_at,
        unioned.occurrences,
        -- Whole days: within a day a score stands still, and nobody is sent again for a decimal.
        coalesce({{ dbt.datediff('unioned.occurred_at', 'run_clock.as_of', 'day') }}, 0) as age_days
    from unioned
    cross join run_clock
    inner join profiles on unioned.person_id = profiles.person_id
    left join refusals on unioned.person_id = refusals.person_id
    where
        refusals.person_id is null
        and (unioned.occurred_at is null or unioned.occurred_at <= run_clock.as_of)

)

select * from final

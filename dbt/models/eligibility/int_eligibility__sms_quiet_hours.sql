-- The hours are those of the person called. The strictest of country and region counts; an unknown zone, or a place
-- whose hours nobody wrote down, is held.
with candidates as (

    select * from {{ ref('int_eligibility__candidates') }}
    where channel = 'sms'

),

rules as (

    select * from {{ ref('jurisdiction_rules') }}
    where channel = 'sms' and rule in ('opens_at', 'closes_at')

),

time_zones as (

    select time_zone from {{ known_time_zones() }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

hours as (

    select
        candidates.person_id,
        candidates.purpose,
        max(case when rules.rule = 'opens_at' then rules.value end) as opens_at,
        min(case when rules.rule = 'closes_at' then rules.value end) as closes_at
    from candidates
    inner join rules
        on
            rules.jurisdiction in (candidates.country, candidates.country_region)
            and candidates.purpose = rules.purpose
    group by candidates.person_id, candidates.purpose

),

clocks as (

    select
        candidates.person_id,
        candidates.channel,
        candidates.purpose,
        {{ clock_time('run_clock.as_of', 'time_zones.time_zone') }} as local_time
    from candidates
    cross join run_clock
    left join time_zones on candidates.time_zone = time_zones.time_zone

),

final as (

    select
        clocks.person_id,
        clocks.channel,
        clocks.purpose,
        'sms_quiet_hours' as reason,
        true as is_deferral,
        clocks.local_time
    from clocks
    left join hours on clocks.person_id = hours.person_id and clocks.purpose = hours.purpose
    where not coalesce(clocks.local_time >= hours.opens_at and clocks.local_time < hours.closes_at, false)

)

select * from final

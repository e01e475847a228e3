{{ config(materialized='incremental', incremental_strategy='append', full_refresh=false) }}

-- State, not a rebuildable model: rows are only ever added. It outlives a full refresh; back it up.
with definitions as (

    select * from {{ ref('holdout_definitions') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

drawn as (

    select
        definitions.holdout,
        profiles.person_id,
        definitions.share,
        {{ holdout_bucket('definitions.salt', 'definitions.holdout', 'profiles.person_id') }} as bucket
    from profiles
    cross join definitions
    {% if is_incremental() -%}
    left join {{ this }} as assigned
        on definitions.holdout = assigned.holdout and profiles.person_id = assigned.person_id
    where assigned.person_id is null
    {%- endif %}

),

final as (

    select
        drawn.holdout,
        drawn.person_id,
        drawn.bucket < drawn.share * 10000 as is_held_out,
        run_clock.as_of as assigned_at
    from drawn
    cross join run_clock

)

select * from final

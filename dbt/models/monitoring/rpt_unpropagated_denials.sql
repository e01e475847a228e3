with

-- What a destination holds of people who may not be reached on that channel for that purpose, as of this build.
-- A sync that ran after the build removes them; whoever is still here after the next build was not propagated.
snapshot_rows as (

    select
        snapshot.sync,
        snapshot.primary_key as person_id,
        snapshot.acked_at,
        runs.channel,
        runs.purpose,
        runs.mode
    from {{ source('activation', 'sync_snapshot') }} as snapshot
    inner join {{ source('activation', 'sync_runs') }} as runs
        on snapshot.acked_run_id = runs.run_id

),

eligibility as (

    select * from {{ ref('fct_eligibility') }}

),

final as (

    select
        snapshot_rows.sync,
        snapshot_rows.person_id,
        snapshot_rows.channel,
        snapshot_rows.purpose,
        eligibility.first_blocker,
        snapshot_rows.acked_at
    from snapshot_rows
    left join eligibility
        on
            snapshot_rows.person_id = eligibility.person_id
            and snapshot_rows.channel = eligibility.channel
            and snapshot_rows.purpose = eligibility.purpose
    where
        snapshot_rows.mode = 'mirror'
        and not coalesce(eligibility.is_eligible, false)

)

select * from final

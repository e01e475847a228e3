with

runs as (

    select * from {{ source('activation', 'sync_runs') }}

),

open_rejections as (

    select
        sync,
        count(*) as open_rejections
    from {{ source('activation', 'rejected_records') }}
    group by sync

),

held_rows as (

    select
        sync,
        count(*) as rows_at_destination
    from {{ source('activation', 'sync_snapshot') }}
    group by sync

),

ranked as (

    select
        *,
        row_number() over (partition by sync order by started_at desc, run_id desc) as recency
    from runs

),

successes as (

    select
        sync,
        max(finished_at) as last_succeeded_at
    from runs
    where run_status = 'succeeded'
    group by sync

),

final as (

    select
        ranked.sync,
        ranked.audience,
        ranked.destination,
        ranked.channel,
        ranked.purpose,
        ranked.run_status,
        ranked.finished_at,
        successes.last_succeeded_at,
        ranked.audience_size,
        ranked.ineligible,
        ranked.held_out,
        ranked.invalid,
        coalesce(held_rows.rows_at_destination, 0) as rows_at_destination,
        coalesce(open_rejections.open_rejections, 0) as open_rejections,
        ranked.in_doubt
    from ranked
    left join successes on ranked.sync = successes.sync
    left join held_rows on ranked.sync = held_rows.sync
    left join open_rejections on ranked.sync = open_rejections.sync
    where ranked.recency = 1

)

select * from final

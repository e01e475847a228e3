-- Objection and erasure stand in the suppressions too, for whoever reads only those; here they have rules of their own.
with suppressions as (

    select * from {{ ref('dim_suppressions') }}
    where reason not in ('objection', 'erasure')

),

channel_purposes as (

    select * from {{ ref('channel_purposes') }}

),

final as (

    select distinct
        suppressions.person_id,
        channel_purposes.channel,
        channel_purposes.purpose,
        'suppressed' as reason
    from suppressions
    inner join channel_purposes on suppressions.channel = channel_purposes.channel

)

select * from final

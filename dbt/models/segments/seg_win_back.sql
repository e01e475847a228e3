with lapsing as (

    select * from {{ ref('seg_lapsing') }}

),

lost as (

    select * from {{ ref('seg_lost') }}

),

final as (

    select
        person_id,
        'lapsing' as stage,
        last_order_on
    from lapsing
    union all
    select
        person_id,
        'lost' as stage,
        last_order_on
    from lost

)

select * from final

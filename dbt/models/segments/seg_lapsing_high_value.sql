with lapsing as (

    select * from {{ ref('seg_lapsing') }}

),

high_value as (

    select * from {{ ref('seg_high_value') }}

),

final as (

    select
        lapsing.person_id,
        lapsing.days_since_last_order,
        high_value.revenue
    from lapsing
    inner join high_value on lapsing.person_id = high_value.person_id

)

select * from final

with traits as (

    select * from {{ ref('dim_profile_traits') }}

),

final as (

    select
        person_id,
        order_count,
        last_order_on
    from traits
    where lifecycle_stage = 'loyal'

)

select * from final

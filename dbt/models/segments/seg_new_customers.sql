with traits as (

    select * from {{ ref('dim_profile_traits') }}

),

final as (

    select
        person_id,
        first_order_on,
        order_count
    from traits
    where lifecycle_stage = 'new'

)

select * from final

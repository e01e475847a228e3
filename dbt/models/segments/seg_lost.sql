with traits as (

    select * from {{ ref('dim_profile_traits') }}

),

final as (

    select
        person_id,
        last_order_on,
        days_since_last_order
    from traits
    where lifecycle_stage = 'lost'

)

select * from final

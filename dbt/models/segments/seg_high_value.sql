with traits as (

    select * from {{ ref('dim_profile_traits') }}

),

final as (

    select
        person_id,
        revenue,
        monetary_quintile
    from traits
    where monetary_quintile >= 4

)

select * from final

with abandoners as (

    select * from {{ ref('seg_basket_abandoners') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

final as (

    select
        profiles.person_id,
        profiles.phone,
        profiles.first_name,
        abandoners.abandoned_session_id,
        cast(abandoners.abandoned_at as date) as abandoned_on,
        cast(abandoners.cart_items as integer) as cart_items
    from abandoners
    inner join profiles on abandoners.person_id = profiles.person_id

)

select * from final

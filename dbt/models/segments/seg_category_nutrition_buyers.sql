with profiles as (

    select * from {{ ref('dim_profiles') }}

),

purchases as (

    select * from {{ ref('int_segments__department_purchases') }}
    where department = 'NUTRITION'

),

final as (

    select
        profiles.person_id,
        purchases.basket_count,
        purchases.last_bought_on
    from profiles
    inner join purchases on profiles.household_id = purchases.household_id
    where purchases.basket_count >= 3

)

select * from final

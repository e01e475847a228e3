-- Orders and coupons belong to households, scores to persons: everybody in the household gets the signal.
with profiles as (

    select * from {{ ref('dim_profiles') }}
    where household_id is not null

),

transactions as (

    select * from {{ ref('stg_retail__transactions') }}

),

redemptions as (

    select * from {{ ref('stg_retail__coupon_redemptions') }}

),

baskets as (

    select
        household_id,
        basket_id,
        min(ordered_at) as ordered_at
    from transactions
    group by household_id, basket_id

),

final as (

    select
        profiles.person_id,
        'order_placed' as signal,
        baskets.ordered_at as occurred_at,
        1 as occurrences
    from baskets
    inner join profiles on baskets.household_id = profiles.household_id
    union all
    select
        profiles.person_id,
        'coupon_redeemed' as signal,
        cast(redemptions.redeemed_on as timestamp) as occurred_at,
        1 as occurrences
    from redemptions
    inner join profiles on redemptions.household_id = profiles.household_id

)

select * from final

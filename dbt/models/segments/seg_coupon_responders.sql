-- Coupons belong to households: everybody in a household that redeems them is a responder.
with profiles as (

    select * from {{ ref('dim_profiles') }}

),

redemptions as (

    select * from {{ ref('stg_retail__coupon_redemptions') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

redeemed as (

    select
        redemptions.household_id,
        count(*) as coupons_redeemed,
        max(redemptions.redeemed_on) as last_redeemed_on
    from redemptions
    cross join run_clock
    where redemptions.redeemed_on <= run_clock.as_of
    group by redemptions.household_id

),

final as (

    select
        profiles.person_id,
        cast(redeemed.coupons_redeemed as integer) as coupons_redeemed,
        redeemed.last_redeemed_on
    from profiles
    inner join redeemed on profiles.household_id = redeemed.household_id

)

select * from final

with source as (

    select * from {{ source('raw', 'retail_coupon_redemptions') }}

),

final as (

    select
        household_id,
        coupon_upc,
        campaign_id,
        cast(redemption_date as date) as redeemed_on
    from source

)

select * from final

with source as (

    select * from {{ source('raw', 'retail_coupons') }}

),

-- The publisher repeats some rows: 116,204 rows, 111,332 different ones.
final as (

    select distinct
        coupon_upc,
        product_id,
        campaign_id
    from source

)

select * from final

with source as (

    select * from {{ source('raw', 'retail_transactions') }}

),

final as (

    select
        household_id,
        store_id,
        basket_id,
        product_id,
        quantity,
        cast(sales_value as decimal(12, 2)) as sales_value,
        cast(retail_disc as decimal(12, 2)) as retail_disc,
        cast(coupon_disc as decimal(12, 2)) as coupon_disc,
        cast(coupon_match_disc as decimal(12, 2)) as coupon_match_disc,
        week,
        transaction_timestamp as ordered_at
    from source

)

select * from final

with source as (

    select * from {{ source('raw', 'retail_products') }}

),

final as (

    select
        product_id,
        manufacturer_id,
        {{ normalise_text('department') }} as department,
        {{ normalise_text('brand') }} as brand,
        {{ normalise_text('product_category') }} as product_category,
        {{ normalise_text('product_type') }} as product_type,
        {{ normalise_text('package_size') }} as package_size
    from source

)

select * from final

with source as (

    select * from {{ source('raw', 'retail_demographics') }}

),

final as (

    select
        household_id,
        {{ normalise_text('age') }} as age_band,
        {{ normalise_text('income') }} as income_band,
        {{ normalise_text('home_ownership') }} as home_ownership,
        {{ normalise_text('marital_status') }} as marital_status,
        {{ normalise_text('household_size') }} as household_size,
        {{ normalise_text('household_comp') }} as household_comp,
        {{ normalise_text('kids_count') }} as kids_count
    from source

)

select * from final

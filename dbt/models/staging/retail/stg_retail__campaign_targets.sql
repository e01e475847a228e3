with source as (

    select * from {{ source('raw', 'retail_campaigns') }}

),

final as (

    select
        campaign_id,
        household_id
    from source

)

select * from final

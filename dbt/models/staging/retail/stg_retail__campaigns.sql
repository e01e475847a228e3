with source as (

    select * from {{ source('raw', 'retail_campaign_descriptions') }}

),

final as (

    select
        campaign_id,
        campaign_type,
        cast(start_date as date) as starts_on,
        cast(end_date as date) as ends_on
    from source

)

select * from final

with source as (

    select * from {{ source('raw', 'phone_history') }}

),

final as (

    select
        {{ normalise_phone('phone', "'" ~ var('default_country', 'US') ~ "'") }} as phone,
        source_system || ':' || contact_id as contact_key,
        valid_from,
        valid_to,
        _generated as is_generated
    from source

)

select * from final

with source as (

    select * from {{ source('raw', 'suppression_list') }}

),

final as (

    select
        identifier_type,
        {{ normalise_identifier(
            'identifier_type', 'identifier', "'" ~ var('default_country', 'US') ~ "'"
        ) }} as identifier,
        channel,
        reason,
        source,
        suppressed_at,
        _generated as is_generated
    from source

)

select * from final

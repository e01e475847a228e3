with source as (

    select * from {{ source('raw', 'message_events') }}

),

final as (

    select
        event_id,
        message_id,
        channel,
        case
            when channel = 'email' then {{ normalise_email('recipient') }}
            else {{ normalise_phone('recipient', "'" ~ var('default_country', 'US') ~ "'") }}
        end as recipient,
        campaign_id,
        event_type,
        occurred_at,
        is_machine,
        _generated as is_generated
    from source

)

select * from final

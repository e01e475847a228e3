with source as (

    select * from {{ source('raw', 'web_events') }}

),

normalised as (

    select
        *,
        {{ normalise_email('login_email') }} as sendable_login_email
    from source

),

final as (

    select
        event_id,
        anonymous_id,
        event_type,
        occurred_at,
        received_at,
        {{ normalise_text('url') }} as url,
        product_id,
        sendable_login_email as login_email,
        {{ normalise_email_match_key('sendable_login_email') }} as login_email_match_key,
        has_gpc,
        {{ normalise_text('user_agent') }} as user_agent,
        _generated as is_generated
    from normalised

)

select * from final

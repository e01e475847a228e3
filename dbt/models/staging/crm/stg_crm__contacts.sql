with source as (

    select * from {{ source('raw', 'crm_contacts') }}

),

normalised as (

    select
        *,
        {{ normalise_country('country') }} as country_code,
        {{ normalise_email('email') }} as sendable_email
    from source

),

final as (

    select
        -- keys
        source_system || ':' || contact_id as contact_key,
        contact_id,
        source_system,
        household_id,
        -- person
        {{ normalise_text('first_name') }} as first_name,
        {{ normalise_text('last_name') }} as last_name,
        sendable_email as email,
        {{ normalise_email_match_key('sendable_email') }} as email_match_key,
        {{ normalise_phone('phone', 'country_code') }} as phone,
        -- place
        {{ normalise_text('postal_code') }} as postal_code,
        {{ normalise_text('city') }} as city,
        {{ normalise_text('region') }} as region,
        country_code as country,
        {{ normalise_text('time_zone') }} as time_zone,
        -- record
        is_deleted,
        created_at,
        updated_at,
        _generated as is_generated
    from normalised

)

select * from final

with source as (

    select * from {{ source('raw', 'consent_events') }}

),

final as (

    select
        event_id,
        subject_type,
        {{ normalise_identifier('subject_type', 'subject', "split_part(jurisdiction, '-', 1)") }} as subject,
        channel,
        purpose,
        {{ normalise_text('program') }} as program,
        action,
        {{ normalise_text('legal_basis') }} as legal_basis,
        {{ normalise_text('jurisdiction') }} as jurisdiction,
        captured_at,
        recorded_at,
        {{ normalise_text('source') }} as source,
        {{ normalise_text('policy_version') }} as policy_version,
        {{ normalise_text('proof') }} as proof,
        expires_at,
        _generated as is_generated
    from source

)

select * from final

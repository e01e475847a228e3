with current_statements as (

    select * from {{ ref('int_consent__current') }}

),

gpc_signals as (

    select * from {{ ref('int_consent__gpc_signals') }}

),

owners as (

    select * from {{ ref('int_consent__subject_owners') }}

),

said as (

    select
        subject_type, subject, channel, purpose, state, has_consent, event_id, captured_at, legal_basis, jurisdiction
    from current_statements
    union all
    select
        subject_type, subject, 'ads' as channel, 'ads_share' as purpose, 'denied' as state, false as has_consent,
        event_id, signalled_at as captured_at, null as legal_basis, null as jurisdiction
    from gpc_signals

),

final as (

    select
        owners.person_id,
        said.channel,
        said.purpose,
        said.subject_type,
        said.subject,
        said.state,
        said.event_id,
        said.captured_at,
        said.legal_basis,
        said.jurisdiction
    from said
    inner join owners on said.subject_type = owners.subject_type and said.subject = owners.subject
    where owners.may_permit or not said.has_consent

)

select * from final

{{ config(group='activation', meta={'dagster': {'ref': {'name': 'fct_eligibility'}}}) }}

-- GDPR 7(1): for everybody who may be reached we can name the event that permits it, and show the proof.
select
    eligibility.person_id,
    eligibility.channel,
    eligibility.consent_event_id
from {{ ref('fct_eligibility') }} as eligibility
left join {{ ref('fct_consent_state') }} as consent
    on eligibility.person_id = consent.person_id
    and eligibility.channel = consent.channel
    and eligibility.purpose = consent.purpose
left join {{ ref('int_consent__statements') }} as statements
    on eligibility.consent_event_id = statements.event_id
    and statements.is_grant
    and statements.void_reason is null
    and statements.proof is not null
where eligibility.is_eligible
    and (statements.event_id is null or not coalesce(consent.has_consent, false))

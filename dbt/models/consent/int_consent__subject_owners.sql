-- Whose word a statement is. A loose or outdated match may block, never permit. An e-mail address permits in exactly
-- the form the person gave it; a phone number only while it is the one that would be called (47 CFR 64.1200 is about
-- numbers); a browser never.
with identifiers as (

    select * from {{ ref('fct_profile_identifiers') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

own_addresses as (

    select * from {{ ref('fct_profile_values') }}
    where field = 'email' and coalesce(lost_because, 'outranked') in ('outranked', 'undeliverable')

),

identity_map as (

    select * from {{ ref('identity_map') }}

),

phone_history as (

    select * from {{ ref('stg_crm__phone_history') }}

),

subjects as (

    select subject_type, subject from {{ ref('stg_consent__events') }}
    union
    select subject_type, subject from {{ ref('int_consent__gpc_signals') }}
    union
    select identifier_type as subject_type, identifier as subject from {{ ref('stg_suppression__list') }}
    union
    select case when channel = 'sms' then 'phone' else 'email' end as subject_type, recipient as subject
    from {{ ref('stg_messaging__events') }}

),

own_mailboxes as (

    select subjects.subject_type, subjects.subject, own_addresses.person_id, true as may_permit
    from subjects
    inner join own_addresses on subjects.subject = own_addresses.value
    where subjects.subject_type = 'email'

),

called_numbers as (

    select subjects.subject_type, subjects.subject, profiles.person_id, true as may_permit
    from subjects
    inner join profiles on subjects.subject = profiles.phone
    where subjects.subject_type = 'phone'

),

known_identifiers as (

    select subjects.subject_type, subjects.subject, identifiers.person_id, false as may_permit
    from subjects
    inner join identifiers
        on subjects.subject_type = identifiers.identifier_type and subjects.subject = identifiers.identifier

),

same_but_for_dots_and_tags as (

    select subjects.subject_type, subjects.subject, identity_map.person_id, false as may_permit
    from subjects
    inner join identity_map
        on
            identity_map.identifier_type = 'email'
            and {{ normalise_email_match_key('subjects.subject') }} = identity_map.identifier
    where subjects.subject_type = 'email'

),

formerly_theirs as (

    select subjects.subject_type, subjects.subject, identity_map.person_id, false as may_permit
    from subjects
    inner join identity_map
        on
            subjects.subject_type = identity_map.identifier_type
            and subjects.subject = identity_map.identifier
    where subjects.subject_type in ('phone', 'anonymous_id')

),

formerly_held_numbers as (

    select subjects.subject_type, subjects.subject, contacts.person_id, false as may_permit
    from subjects
    inner join phone_history on subjects.subject = phone_history.phone
    inner join identity_map as contacts
        on contacts.identifier_type = 'contact' and phone_history.contact_key = contacts.identifier
    where subjects.subject_type = 'phone'

),

matches as (

    select * from own_mailboxes
    union all
    select * from called_numbers
    union all
    select * from known_identifiers
    union all
    select * from same_but_for_dots_and_tags
    union all
    select * from formerly_theirs
    union all
    select * from formerly_held_numbers

),

final as (

    select
        subject_type,
        subject,
        person_id,
        {{ dbt.bool_or('may_permit') }} as may_permit
    from matches
    where person_id is not null
    group by subject_type, subject, person_id

)

select * from final

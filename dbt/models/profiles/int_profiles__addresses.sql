with contacts as (

    select * from {{ ref('int_profiles__contacts') }}

),

phone_ownership as (

    select * from {{ ref('int_identity__phone_ownership') }} where is_current

),

web_events as (

    select * from {{ ref('stg_web__events') }}

),

identity_map as (

    select * from {{ ref('identity_map') }} where is_current

),

clock as (

    select * from {{ ref('run_clock') }}

),

of_contacts as (

    select
        person_id,
        'email' as identifier_type,
        email as address,
        email_match_key as match_key,
        contact_key as record_key,
        source_system,
        created_at as first_observed_at,
        updated_at as observed_at,
        false as is_dated,
        is_generated
    from contacts
    where email is not null

    union all

    select
        contacts.person_id,
        'phone',
        phone_ownership.phone,
        phone_ownership.phone,
        contacts.contact_key,
        contacts.source_system,
        phone_ownership.valid_from,
        case when phone_ownership.is_dated then phone_ownership.valid_from else contacts.updated_at end,
        phone_ownership.is_dated,
        contacts.is_generated
    from phone_ownership
    inner join contacts
        on contacts.contact_key = phone_ownership.contact_key

),

of_logins as (

    select
        identity_map.person_id,
        'email' as identifier_type,
        web_events.login_email as address,
        web_events.login_email_match_key as match_key,
        'web:' || web_events.login_email as record_key,
        'web' as source_system,
        min(web_events.occurred_at) as first_observed_at,
        max(web_events.occurred_at) as observed_at,
        false as is_dated,
        max(case when web_events.is_generated then 1 else 0 end) = 1 as is_generated
    from web_events
    cross join clock
    inner join identity_map
        on identity_map.identifier_type = 'email'
        and identity_map.identifier = web_events.login_email_match_key
    where web_events.occurred_at <= clock.as_of
    group by identity_map.person_id, web_events.login_email, web_events.login_email_match_key

),

final as (

    select * from of_contacts
    union all
    select * from of_logins

)

select * from final

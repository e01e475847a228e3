with contacts as (

    select * from {{ ref('int_identity__contacts') }}

),

phone_ownership as (

    select * from {{ ref('int_identity__phone_ownership') }}

),

web_events as (

    select * from {{ ref('stg_web__events') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

seen_events as (

    select
        web_events.anonymous_id,
        web_events.login_email_match_key,
        web_events.occurred_at
    from web_events
    cross join clock
    where web_events.occurred_at <= clock.as_of
        and web_events.anonymous_id is not null

),

of_contacts as (

    select
        'contact' as record_type,
        contact_key as record_id,
        'contact' as identifier_type,
        contact_key as identifier,
        created_at as first_seen_at,
        cast(null as {{ dbt.type_timestamp() }}) as valid_to,
        true as is_current
    from contacts

    union all

    select 'contact', contact_key, 'email', email_match_key, created_at, null, true
    from contacts
    where email_match_key is not null

    union all

    select 'contact', contact_key, 'household', cast(household_id as {{ dbt.type_string() }}), created_at, null, true
    from contacts
    where household_id is not null

    union all

    select 'contact', contact_key, 'phone', phone, valid_from, valid_to, is_current
    from phone_ownership

),

of_devices as (

    select
        'device' as record_type,
        anonymous_id as record_id,
        'anonymous_id' as identifier_type,
        anonymous_id as identifier,
        min(occurred_at) as first_seen_at,
        cast(null as {{ dbt.type_timestamp() }}) as valid_to,
        true as is_current
    from seen_events
    group by anonymous_id

    union all

    select 'device', anonymous_id, 'email', login_email_match_key, min(occurred_at), null, true
    from seen_events
    where login_email_match_key is not null
    group by anonymous_id, login_email_match_key

),

final as (

    select * from of_contacts
    union all
    select * from of_devices

)

select * from final

with sessions as (

    select * from {{ ref('int_profiles__web_sessions') }}

),

identity_map as (

    select * from {{ ref('identity_map') }} where is_current

),

events as (

    select * from {{ ref('int_profiles__session_events') }}

),

-- On a device that several people use, only a login says who is sitting there.
logins as (

    select
        events.session_id,
        min(identity_map.person_id) as person_id
    from events
    inner join identity_map
        on identity_map.identifier_type = 'email'
        and identity_map.identifier = events.login_email_match_key
    group by events.session_id
    having count(distinct identity_map.person_id) = 1

),

final as (

    select
        sessions.session_id,
        sessions.anonymous_id,
        coalesce(devices.person_id, logins.person_id) as person_id,
        sessions.started_at,
        sessions.ended_at,
        sessions.event_count,
        sessions.product_views,
        sessions.cart_adds,
        sessions.has_checkout,
        sessions.has_gpc,
        sessions.is_quarantined
    from sessions
    left join identity_map as devices
        on devices.identifier_type = 'anonymous_id'
        and devices.identifier = sessions.anonymous_id
    left join logins
        on logins.session_id = sessions.session_id

)

select * from final

-- An opt-out signal counts for the browser and for every profile tied to it (CCPA regulations 7025(c)(1)), so it is
-- also a statement of everybody who ever logged in there. A cookie banner accepted later does not lift it.
with events as (

    select * from {{ ref('stg_web__events') }}

),

browsers as (

    select
        anonymous_id,
        min(occurred_at) as signalled_at,
        min(event_id) as event_id
    from events
    where has_gpc and anonymous_id is not null
    group by anonymous_id

),

logins as (

    select
        events.login_email,
        min(browsers.signalled_at) as signalled_at,
        min(browsers.event_id) as event_id
    from events
    inner join browsers on events.anonymous_id = browsers.anonymous_id
    where events.login_email is not null
    group by events.login_email

),

final as (

    select 'anonymous_id' as subject_type, anonymous_id as subject, signalled_at, event_id
    from browsers
    union all
    select 'email' as subject_type, login_email as subject, signalled_at, event_id
    from logins

)

select * from final

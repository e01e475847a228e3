-- What counts and what does not, before anybody asks which statement is the latest. Only grants can be void:
-- a denial counts whatever is wrong with it.
with events as (

    select * from {{ ref('stg_consent__events') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

recycled_phones as (

    select * from {{ ref('int_consent__recycled_phones') }}

),

dated as (

    select
        events.event_id,
        events.subject_type,
        events.subject,
        events.channel,
        events.purpose,
        coalesce(events.program, '') as program,
        coalesce(events.action, 'unreadable') as action,
        coalesce(events.action in ('granted', 'confirmed'), false) as is_grant,
        -- A clock in the future must not outrank a withdrawal; an undated statement counts as said just now.
        coalesce(least(events.captured_at, events.recorded_at), run_clock.as_of) as effective_at,
        events.captured_at,
        events.expires_at,
        events.legal_basis,
        events.jurisdiction,
        events.source,
        events.policy_version,
        events.proof,
        run_clock.as_of
    from events
    cross join run_clock

),

-- A confirmation answers the statement before it: every other action opens a chapter that confirmations belong to.
chapters as (

    select
        *,
        sum(case when action = 'confirmed' then 0 else 1 end) over (
            partition by subject_type, subject, channel, purpose, program
            order by effective_at asc, is_grant desc, event_id asc
            rows unbounded preceding
        ) as chapter
    from dated

),

opened as (

    select
        *,
        first_value(action) over (
            partition by subject_type, subject, channel, purpose, program, chapter
            order by effective_at asc, is_grant desc, event_id asc
        ) as opening_action,
        first_value(expires_at) over (
            partition by subject_type, subject, channel, purpose, program, chapter
            order by effective_at asc, is_grant desc, event_id asc
        ) as opening_expires_at
    from chapters

),

judged as (

    select
        opened.*,
        case
            when not opened.is_grant then null
            when opened.effective_at > opened.as_of then 'not_yet_said'
            when opened.effective_at < recycled_phones.changed_hands_at then 'former_holder'
            when opened.action = 'granted' then null
            when opened.opening_action not in ('pending', 'granted', 'confirmed') then 'token_reused'
            when opened.opening_action = 'pending' and opened.opening_expires_at < opened.effective_at
                then 'token_expired'
        end as void_reason
    from opened
    left join recycled_phones on opened.subject_type = 'phone' and opened.subject = recycled_phones.phone

),

final as (

    select
        event_id,
        subject_type,
        subject,
        channel,
        purpose,
        program,
        action,
        is_grant,
        effective_at,
        captured_at,
        expires_at,
        legal_basis,
        jurisdiction,
        source,
        policy_version,
        proof,
        void_reason
    from judged

)

select * from final

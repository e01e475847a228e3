-- Ordering rule: the latest statement by the earlier of its two clocks; ties go to denial, then to the larger id.
-- An old grant that arrives late therefore stays older than the withdrawal.
with statements as (

    select * from {{ ref('int_consent__statements') }}
    where void_reason is null

),

states as (

    select * from {{ ref('consent_states') }}

),

known_jurisdictions as (

    select distinct jurisdiction from {{ ref('jurisdiction_rules') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

ranked as (

    select
        *,
        row_number() over (
            partition by subject_type, subject, channel, purpose, program
            order by effective_at desc, is_grant asc, event_id desc
        ) as recency
    from statements

),

latest as (

    select
        ranked.*,
        case
            when not ranked.is_grant then ranked.action
            -- Nobody could demonstrate it: GDPR 7(1).
            when
                ranked.captured_at is null or ranked.legal_basis is null or ranked.source is null
                or ranked.policy_version is null or ranked.proof is null
                then 'unproven'
            when known_jurisdictions.jurisdiction is null then 'unknown_jurisdiction'
            when ranked.expires_at < run_clock.as_of then 'expired'
            -- Implied consent always ends; without a date it has.
            when ranked.legal_basis = 'implied' and ranked.expires_at is null then 'expired'
            else 'granted'
        end as stated
    from ranked
    cross join run_clock
    -- US-NY is known when US is.
    left join known_jurisdictions
        on {{ dbt.split_part('ranked.jurisdiction', "'-'", 1) }} = known_jurisdictions.jurisdiction
    where ranked.recency = 1

),

readable as (

    select
        latest.*,
        coalesce(states.state, 'unreadable') as state
    from latest
    left join states on latest.stated = states.state

),

folded as (

    select
        readable.*,
        states.has_consent,
        row_number() over (
            partition by readable.subject_type, readable.subject, readable.channel, readable.purpose
            order by states.restrictiveness asc, readable.effective_at desc, readable.event_id desc
        ) as preference
    from readable
    inner join states on readable.state = states.state

),

final as (

    select
        subject_type,
        subject,
        channel,
        purpose,
        state,
        has_consent,
        program,
        event_id,
        effective_at,
        captured_at,
        expires_at,
        legal_basis,
        jurisdiction
    from folded
    where preference = 1

)

select * from final

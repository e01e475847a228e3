-- Consent is never survived: whatever the profile kept of two merged records, the most restrictive word of all
-- their identifiers holds.
with profiles as (

    select * from {{ ref('dim_profiles') }}

),

channel_purposes as (

    select * from {{ ref('channel_purposes') }}

),

statements as (

    select * from {{ ref('int_consent__person_statements') }}

),

states as (

    select * from {{ ref('consent_states') }}

),

asked as (

    select
        profiles.person_id,
        channel_purposes.channel,
        channel_purposes.purpose
    from profiles
    cross join channel_purposes

),

answered as (

    select
        asked.person_id,
        asked.channel,
        asked.purpose,
        coalesce(statements.state, 'missing') as state,
        statements.event_id,
        statements.captured_at,
        statements.legal_basis,
        statements.jurisdiction
    from asked
    left join statements
        on
            asked.person_id = statements.person_id
            and asked.channel = statements.channel
            and asked.purpose = statements.purpose

),

ranked as (

    select
        answered.*,
        states.has_consent,
        row_number() over (
            partition by answered.person_id, answered.channel, answered.purpose
            order by states.restrictiveness asc, answered.captured_at desc, answered.event_id desc
        ) as preference
    from answered
    inner join states on answered.state = states.state

),

final as (

    select
        person_id,
        channel,
        purpose,
        has_consent,
        state,
        event_id as consent_event_id,
        captured_at,
        legal_basis,
        jurisdiction
    from ranked
    where preference = 1

)

select * from final

-- Who may be reached, how, and why not. Denials take the person out; deferrals make a message wait.
{% set rules = [
    'erased', 'suppressed', 'objection', 'jurisdiction', 'consent', 'unreachable', 'frequency_cap', 'sms_quiet_hours',
] -%}
with candidates as (

    select * from {{ ref('int_eligibility__candidates') }}

),

rules as (

    select * from {{ ref('eligibility_rules') }}

),

consent as (

    select * from {{ ref('fct_consent_state') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

found as (

    {% for rule in rules -%}
    select person_id, channel, purpose, reason from {{ ref('int_eligibility__' ~ rule) }}
    {% if not loop.last %}union all
    {% endif %}
    {%- endfor %}

),

-- A reason that is no rule denies, and is named first so that somebody asks.
ranked as (

    select
        found.person_id,
        found.channel,
        found.purpose,
        found.reason,
        coalesce(rules.is_deferral, false) as is_deferral,
        row_number() over (
            partition by found.person_id, found.channel, found.purpose
            order by coalesce(rules.decision_order, 0), found.reason
        ) as position
    from found
    left join rules on found.reason = rules.rule

),

blocked as (

    select
        person_id,
        channel,
        purpose,
        {{ dbt.bool_or('not is_deferral') }} as is_denied,
        {{ dbt.bool_or('is_deferral') }} as is_deferred,
        max(case when position = 1 then reason end) as first_blocker,
        {{ dbt.listagg('reason', "','", 'order by position') }} as blockers
    from ranked
    group by person_id, channel, purpose

),

final as (

    select
        candidates.person_id,
        candidates.channel,
        candidates.purpose,
        not coalesce(blocked.is_denied, false) as is_eligible,
        coalesce(blocked.is_deferred, false) as is_deferred,
        blocked.first_blocker,
        coalesce(blocked.blockers, '') as blockers,
        consent.consent_event_id,
        run_clock.as_of as evaluated_at
    from candidates
    cross join run_clock
    left join blocked
        on
            candidates.person_id = blocked.person_id
            and candidates.channel = blocked.channel
            and candidates.purpose = blocked.purpose
    left join consent
        on
            candidates.person_id = consent.person_id
            and candidates.channel = consent.channel
            and candidates.purpose = consent.purpose

)

select * from final

{{ config(group='activation', meta={'dagster': {'ref': {'name': 'fct_eligibility'}}}) }}

-- A blocker that is no rule of the decision order, or a first blocker that is not the first of all blockers.
select
    eligibility.person_id,
    eligibility.channel,
    eligibility.first_blocker,
    eligibility.blockers
from {{ ref('fct_eligibility') }} as eligibility
left join {{ ref('eligibility_rules') }} as rules
    on eligibility.first_blocker = rules.rule
where (eligibility.first_blocker is not null and rules.rule is null)
    or coalesce(eligibility.first_blocker, '') <> {{ dbt.split_part('eligibility.blockers', "','", 1) }}
    or (not eligibility.is_eligible and rules.is_deferral)
    or (eligibility.is_eligible and not rules.is_deferral)

{{ config(group='activation', meta={'dagster': {'ref': {'name': 'fct_eligibility'}}}) }}

-- Whatever consent says: a suppression on a channel ends eligibility on it.
select
    eligibility.person_id,
    eligibility.channel,
    suppressions.reason
from {{ ref('fct_eligibility') }} as eligibility
inner join {{ ref('dim_suppressions') }} as suppressions
    on eligibility.person_id = suppressions.person_id
    and eligibility.channel = suppressions.channel
where eligibility.is_eligible

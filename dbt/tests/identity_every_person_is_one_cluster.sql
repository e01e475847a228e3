{{ config(group='activation', meta={'dagster': {'ref': {'name': 'identity_map'}}}) }}

-- A person in two clusters would be two people under one id, which no later run could tell apart.
select identity_map.person_id
from {{ ref('identity_map') }} as identity_map
inner join {{ ref('int_identity__clusters') }} as clusters
    on clusters.identifier_type = identity_map.identifier_type
    and clusters.identifier = identity_map.identifier
where identity_map.is_current
    and not clusters.is_oversized
group by identity_map.person_id
having count(distinct clusters.component) > 1

{{ config(group='activation', meta={'dagster': {'ref': {'name': 'identity_map'}}}) }}

select clusters.component
from {{ ref('int_identity__clusters') }} as clusters
left join {{ ref('identity_map') }} as identity_map
    on identity_map.identifier_type = clusters.identifier_type
    and identity_map.identifier = clusters.identifier
    and identity_map.is_current
where not clusters.is_oversized
group by clusters.component
having count(distinct identity_map.person_id) <> 1
    or count(*) <> count(identity_map.person_id)

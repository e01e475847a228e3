{{ config(group='activation', meta={'dagster': {'ref': {'name': 'dim_profiles'}}}) }}

select distinct identity_map.person_id
from {{ ref('identity_map') }} as identity_map
left join {{ ref('dim_profiles') }} as dim_profiles
    on dim_profiles.person_id = identity_map.person_id
where identity_map.is_current
    and dim_profiles.person_id is null

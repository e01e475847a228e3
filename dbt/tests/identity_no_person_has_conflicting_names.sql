{{ config(group='activation', meta={'dagster': {'ref': {'name': 'identity_map'}}}) }}

{{ config(severity='warn') }}

-- Each link was sound by itself; a chain of them joined two contacts whose names contradict each other.
select
    a.person_id,
    pairs.contact_a,
    pairs.contact_b
from {{ ref('int_identity__contact_pairs') }} as pairs
inner join {{ ref('identity_map') }} as a
    on a.identifier_type = 'contact'
    and a.identifier = pairs.contact_a
    and a.is_current
inner join {{ ref('identity_map') }} as b
    on b.identifier_type = 'contact'
    and b.identifier = pairs.contact_b
    and b.is_current
where pairs.verdict = 'conflict'
    and a.person_id = b.person_id

{{ config(group='activation') }}

select person_id
from {{ ref('identity_events') }}
where event_type = 'created'
group by person_id
having count(*) > 1

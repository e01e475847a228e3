select
  contact_id, source_system, household_id, first_name, last_name, email, phone,
  address, postal_code, city, region, country, time_zone,
  created_at,
  case when is_deleted then timestamp '2017-07-05 09:00:00' else updated_at end as updated_at,
  is_deleted,
  true as _generated
from records
where household_id in (from scope_households)

select source_system, contact_id, true_person_id, true as _generated
from records
where household_id in (from scope_households)

select *
from publisher_demographics
where household_id in (from scope_households)

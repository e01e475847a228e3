select t.*
from publisher_campaigns t
join publisher_campaign_descriptions c using (campaign_id)
where t.household_id in (from scope_households)
  and c.start_date < (select as_of from scope)

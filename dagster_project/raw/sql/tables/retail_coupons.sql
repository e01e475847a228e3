select k.*
from publisher_coupons k
join publisher_campaign_descriptions c using (campaign_id)
where c.start_date < (select as_of from scope)

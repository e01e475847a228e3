select *
from publisher_coupon_redemptions
where household_id in (from scope_households)
  and redemption_date >= (select starts_at from scope)
  and redemption_date < (select as_of from scope)

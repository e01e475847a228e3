select *
from publisher_transactions
where household_id in (from scope_households)
  and transaction_timestamp >= (select starts_at from scope)
  and transaction_timestamp < (select as_of from scope)

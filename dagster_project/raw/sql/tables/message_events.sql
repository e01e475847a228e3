with steps as (
  select *, 'sent' as event_type, 0 as delay, false as is_machine
  from sends

  union all
  select *, case outcome when 'bounced' then 'bounced' else 'delivered' end,
    case outcome when 'bounced' then 6 else 4 end, false
  from sends

  union all
  -- A mail proxy fetches the pictures seconds after delivery: an open that nobody saw.
  select *, 'opened', 6, true
  from sends
  where channel = 'email' and outcome <> 'bounced' and is_opened_by_machine

  union all
  select *, 'opened', 600 + below(80000, household_id, 'opens ' || send_key), false
  from sends
  where channel = 'email' and outcome in ('opened', 'clicked', 'complained', 'unsubscribed')

  union all
  select *, 'clicked', 80700 + below(3000, household_id, 'clicks ' || send_key), false
  from sends
  where outcome = 'clicked'

  union all
  -- A link scanner at the recipient's mail server.
  select *, 'clicked', 7, true
  from sends
  where channel = 'email' and outcome = 'delivered' and draw(household_id, 'scanner ' || send_key) < 0.02

  union all
  select *, outcome, 84000, false
  from sends
  where outcome in ('complained', 'unsubscribed', 'stop')
),
timed as (
  select *, sent_at + to_seconds(delay) as occurred_at from steps
)
select
  'msg-' || token(household_id, send_key || ' ' || event_type || is_machine) as event_id,
  message_id, channel, recipient, campaign_id, event_type, occurred_at, is_machine,
  true as _generated
from timed
where household_id in (from scope_households)
  and occurred_at >= (select starts_at from scope)
  and occurred_at < (select as_of from scope)

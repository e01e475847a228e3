with steps as (
  select *, 0 as step, 'page_view' as event_type, '' as path
  from visits

  union all by name
  select *, 1 as step, 'login' as event_type, 'login' as path
  from visits
  where login_email is not null

  union all by name
  select v.*, 2 * product_no as step, 'product_view' as event_type, product_id, 'products/' || product_id as path
  from visits v
  join visit_products using (household_id, visit_key)

  union all by name
  select v.*, 2 * product_no + 1 as step, 'add_to_cart' as event_type, product_id, 'cart' as path
  from visits v
  join visit_products using (household_id, visit_key)
  where v.outcome <> 'browse'

  union all by name
  select *, 20 as step, 'checkout' as event_type, 'checkout' as path
  from visits
  where outcome = 'checkout'
),
of_people as (
  select
    household_id, 'evt-' || token(household_id, visit_key || ' step ' || step) as event_id,
    anonymous_id, event_type,
    started_at + to_seconds(step * 45 + below(40, household_id, visit_key || ' pause ' || step)) as occurred_at,
    is_late, path, product_id, case when event_type = 'login' then login_email end as login_email,
    has_gpc, user_agent
  from steps
),
bots as (
  select household_id, min(product_id) as product_id, unnest(range(151)) as page_no
  from households
  join publisher_transactions using (household_id)
  where draw_rank % 50 = 7
  group by household_id
),
-- A crawler that opens a page every eight minutes for twenty hours: one unbroken session, never a person.
of_bots as (
  select
    household_id, 'evt-' || token(household_id, 'bot step ' || page_no) as event_id,
    'anon-' || token(household_id, 'bot') as anonymous_id, 'product_view' as event_type,
    timestamp '2017-07-01 02:00:00'
      + to_days(below(50, household_id, 'bot day')) + to_minutes(page_no * 8) as occurred_at,
    false as is_late, 'products/' || product_id as path, product_id,
    false as has_gpc, 'ExampleBot/1.0' as user_agent
  from bots
),
received as (
  select
    *,
    occurred_at + case
      when is_late then interval 3 day
      else to_seconds(below(5, household_id, event_id))
    end as received_at
  from (from of_people union all by name from of_bots)
)
select
  event_id, anonymous_id, event_type, occurred_at, received_at, 'https://shop.example.com/' || path as url,
  product_id, login_email, has_gpc, user_agent,
  true as _generated
from received
where household_id in (from scope_households)
  and occurred_at >= (select starts_at from scope)
  and received_at < (select as_of from scope)

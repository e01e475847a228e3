-- One row per web visit of a person, and in a second table the products looked at.
-- Outcome `checkout` or `browse`: hours or days before a real basket of the household, the same products.
-- Outcome `abandoned`: things the household is known to buy go into the basket and stay there. Many do so in
-- two promotion seasons, late summer and year's end.
create or replace temp table visits as
with baskets as (
  select household_id, basket_id, min(transaction_timestamp) as ordered_at
  from publisher_transactions
  group by household_id, basket_id
),
before_baskets as (
  select
    b.household_id, 'basket ' || b.basket_id as visit_key, b.basket_id,
    1 + below(h.people_count, b.household_id, 'shopper of ' || b.basket_id) as person_no,
    case when draw(b.household_id, 'online ' || b.basket_id) < 0.5 then 'checkout' else 'browse' end as outcome,
    b.ordered_at - to_minutes(30 + below(2800, b.household_id, 'ahead of ' || b.basket_id)) as started_at
  from baskets b
  join households h using (household_id)
  where draw(b.household_id, 'visit before ' || b.basket_id) < 0.16
),
weeks as (
  select
    unnest(generate_series(date '2017-01-01', date '2017-12-31', interval 7 day))::date as week,
    week between date '2017-08-13' and date '2017-09-02' or week >= date '2017-12-17' as is_season
),
abandoned as (
  select
    household_id, 'abandoned ' || person_no || ' ' || week as visit_key, null as basket_id,
    person_no, 'abandoned' as outcome,
    week::timestamp
      + to_days(below(7, household_id, 'weekday ' || person_no || week))
      + to_minutes(840 + below(720, household_id, 'minute ' || person_no || week)) as started_at
  from people cross join weeks
  where draw(household_id, 'abandons ' || person_no || week) < case when is_season then 0.30 else 0.05 end
),
together as (
  from before_baskets union all by name from abandoned
),
device_counts as (
  select household_id, person_no, count(*) as device_count from devices group by household_id, person_no
)
select
  v.household_id, v.person_no, v.visit_key, v.basket_id, v.outcome, v.started_at,
  d.anonymous_id, d.has_gpc, d.user_agent,
  case
    when v.started_at >= d.logs_in_from and draw(v.household_id, 'logs in ' || v.visit_key) < 0.6
      then d.login_email
  end as login_email,
  draw(v.household_id, 'late ' || v.visit_key) < 0.01 as is_late,
  1 + below(4, v.household_id, 'products of ' || v.visit_key) as product_count
from together v
join device_counts c using (household_id, person_no)
join devices d on d.household_id = v.household_id and d.person_no = v.person_no
  and d.device_no = 1 + below(c.device_count, v.household_id, 'device of ' || v.visit_key);

create or replace temp table visit_products as
with favourites as (
  select
    household_id, product_id,
    row_number() over (partition by household_id order by count(*) desc, product_id) as favourite_no
  from publisher_transactions
  group by household_id, product_id
  qualify favourite_no <= 12
),
candidates as (
  select v.household_id, v.visit_key, v.product_count, t.product_id, v.basket_id::varchar as shuffle
  from visits v
  join publisher_transactions t on t.basket_id = v.basket_id

  union all
  select v.household_id, v.visit_key, v.product_count, f.product_id, v.visit_key
  from visits v
  join favourites f on f.household_id = v.household_id
  where v.outcome = 'abandoned'
)
select
  household_id, visit_key, product_id,
  row_number() over (partition by household_id, visit_key order by md5(shuffle || '|' || product_id)) as product_no
from candidates
qualify product_no <= product_count;

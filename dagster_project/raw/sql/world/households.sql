-- One row per household of the publisher's data, with the area it is said to live in.
-- Neighbours in md5 order form a pair: both sides of a recycled phone number are in the slice, or neither is.
create or replace temp table households as
with ranked as (
  select household_id, row_number() over (order by md5(household_id::varchar)) as draw_rank
  from (select distinct household_id from publisher_transactions)
),
placed as (
  -- 1009 has no factor in common with 2500: every household gets a place of its own, 25 places an area,
  -- four phone numbers a place, hence no number twice.
  select *, (draw_rank - 1) // 2 as pair_no, (household_id * 1009) % 2500 as place from ranked
)
select
  p.household_id, p.draw_rank, p.pair_no, p.place % 25 as place_in_area,
  a.phone_prefix, a.city, a.region, a.country, a.postal_code, a.time_zone,
  case when a.country in ('US', 'CA') then a.country || '-' || a.region else a.country end as jurisdiction,
  case
    when draw(p.household_id, 'size') < 0.40 then 1
    when draw(p.household_id, 'size') < 0.75 then 2
    when draw(p.household_id, 'size') < 0.90 then 3
    else 4
  end as people_count
from placed p
join areas a on a.line_no = p.place // 25;

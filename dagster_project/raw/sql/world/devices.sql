-- One row per person and device. A shared device appears once per person who uses it, with one anonymous_id.
create or replace temp table devices as
with counted as (
  select *, draw(household_id, 'device count ' || person_no) as count_draw from people
),
owned as (
  select
    * exclude (count_draw),
    unnest(range(1, case when count_draw < 0.70 then 2 when count_draw < 0.92 then 3 else 4 end)) as device_no
  from counted
)
select
  *,
  'anon-' || token(household_id, 'device ' || device_no || ' of ' || case
    when device_no = 1 and person_no = 2 and draw(household_id, 'shared device') < 0.15 then 1
    else person_no
  end) as anonymous_id,
  draw(household_id, 'gpc ' || person_no) < 0.06 as has_gpc,
  choose(
    [
      'Mozilla/5.0 (Windows NT 10.0; Win64; x64)',
      'Mozilla/5.0 (iPhone; CPU iPhone OS 10_3 like Mac OS X)',
      'Mozilla/5.0 (Linux; Android 7.0)',
      'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_12)'
    ],
    household_id, 'browser ' || person_no || device_no
  ) as user_agent,
  case mailbox_kind when 'own' then own_email when 'shared' then family_email end as login_email,
  -- Some look around anonymously for weeks before they first log in.
  case
    when draw(household_id, 'late login ' || person_no) < 0.15 then timestamp '2017-07-25'
    else timestamp '2017-01-01'
  end as logs_in_from
from owned;

-- The manual "no" of legal, sales and support as they keep it: one line each, addresses as somebody typed them.
with drawn as (
  select *, draw(household_id, 'suppressed ' || person_no) as suppression_draw from people
),
listed as (
  select
    *,
    case
      when suppression_draw < 0.015 then 'legal'
      when suppression_draw < 0.030 then 'competitor'
      else 'complaint'
    end as reason,
    timestamp '2017-01-10 10:00:00'
      + to_minutes(below(200000, household_id, 'suppressed at ' || person_no)) as suppressed_at
  from drawn
  where suppression_draw < 0.050
),
by_identifier as (
  select
    household_id, 'email' as identifier_type, upper(own_email) as identifier,
    case reason when 'complaint' then 'email' else 'all' end as channel, reason, suppressed_at
  from listed
  where mailbox_kind = 'own'

  union all
  select household_id, 'phone', own_phone, 'sms', reason, suppressed_at
  from listed
  where phone_kind = 'own' and not lost_number and reason = 'complaint'
)
select
  identifier_type, identifier, channel, reason,
  case reason
    when 'legal' then 'legal_desk'
    when 'competitor' then 'sales_team'
    else 'customer_support'
  end as source,
  suppressed_at,
  true as _generated
from by_identifier
where household_id in (from scope_households)

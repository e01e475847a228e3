-- One row per true person: what the CRM records are imperfect copies of.
create or replace temp table people as
with members as (
  select h.*, unnest(range(1, h.people_count + 1)) as person_no from households h
),
drawn as (
  select
    *,
    below((select count(*) from given_names), household_id, 'given name ' || person_no) as given_no,
    -- Most of a household go by one family name.
    below((select count(*) from surnames), household_id, 'surname' || case
      when draw(household_id, 'own surname ' || person_no) < 0.2 then person_no::varchar else ''
    end) as surname_no,
    draw(household_id, 'mailbox ' || person_no) as mailbox_draw,
    draw(household_id, 'phone ' || person_no) as phone_draw,
    draw(household_id, 'mail consent ' || person_no) as mail_consent_draw,
    people_count > 1 and draw(household_id, 'shared mailbox') < 0.08 as shares_mailbox,
    people_count > 1 and person_no > 1 and draw(household_id, 'shared phone') < 0.04 as shares_phone,
    pair_no % 20 = 3 and person_no = 1 as changes_hands,
    choose(['com', 'org', 'net'], household_id, 'mail domain ' || person_no) as mail_domain,
    household_id * 4 + person_no as mailbox_no,
    place_in_area * 4 + person_no - 1 as phone_no,
    timestamp '2015-01-05 14:00:00'
      + to_days(below(850, household_id, 'joined ' || person_no))
      + to_seconds(below(30000, household_id, 'joined at ' || person_no)) as joined_at
  from members
),
described as (
  select
    d.*, g.given_name, g.nickname, s.surname,
    case
      when shares_mailbox then 'shared'
      when mailbox_draw < 0.020 then 'none'
      when mailbox_draw < 0.035 then 'placeholder'
      when mailbox_draw < 0.045 then 'role'
      when mailbox_draw < 0.055 then 'malformed'
      else 'own'
    end as mailbox_kind,
    case
      -- No German range for fiction is in use here.
      when country = 'DE' then 'none'
      when phone_draw < 0.11 then 'none'
      when phone_draw < 0.14 then 'placeholder'
      when phone_draw < 0.15 then 'malformed'
      when shares_phone then 'shared'
      else 'own'
    end as phone_kind
  from drawn d
  join given_names g on g.line_no = d.given_no
  join surnames s on s.line_no = d.surname_no
)
select
  *,
  'P-' || token(household_id, 'person ' || person_no) as true_person_id,
  lower(given_name || '.' || surname) || mailbox_no || '@example.' || mail_domain as own_email,
  lower(left(given_name, 1) || surname) || mailbox_no || '@example.net' as second_email,
  lower(given_name || '.' || surname) || mailbox_no || '.old@example.com' as former_email,
  'family.' || household_id || '@example.net' as family_email,
  phone_prefix || lpad(phone_no::varchar, 2, '0') as own_phone,
  phone_prefix || lpad((place_in_area * 4)::varchar, 2, '0') as family_phone,
  -- The old address bounced for good in August 2017 and the shop learned a new one.
  mailbox_kind = 'own' and draw(household_id, 'new address ' || person_no) < 0.05 as changed_email,
  timestamp '2017-08-11 15:00:00' + to_minutes(below(7000, household_id, 'new address at ' || person_no))
    as changed_email_at,
  -- In some pairs of households a phone number left the one for the other in July 2017.
  changes_hands and draw_rank % 2 = 1 as lost_number,
  changes_hands and draw_rank % 2 = 0 as took_number,
  case
    when mailbox_kind <> 'own' then null
    when mail_consent_draw < 0.030 then 'pending'
    when mail_consent_draw < 0.045 then 'expired token'
    when mail_consent_draw < 0.060 then 'late grant'
    when mail_consent_draw < 0.075 then 'future clock'
    when mail_consent_draw < 0.100 then 'withdrawn'
    when mail_consent_draw < 0.110 then 'objected'
    when mail_consent_draw < 0.120 then 'erased'
    when mail_consent_draw < 0.920 then 'granted'
    when mail_consent_draw < 0.960 then 'denied'
  end as mail_consent,
  coalesce(mail_consent = 'granted', false) as grants_email,
  phone_kind = 'own' and not changes_hands and draw(household_id, 'sms consent ' || person_no) < 0.66
    as grants_sms,
  mailbox_kind = 'own' and draw(household_id, 'ads consent ' || person_no) < 0.80 as grants_ads
from described;

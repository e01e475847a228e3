-- One row per CRM record with the person behind it; `crm_contacts` and the truth table are its two halves.
create or replace temp table records as
with moves as (
  select
    pair_no, own_phone as moved_phone,
    timestamp '2017-07-05 12:00:00' + to_days(below(10, household_id, 'number left')) as left_at
  from people
  where lost_number and country <> 'DE'
),
holders as (
  select p.*, m.moved_phone, m.left_at
  from people p
  left join moves m on m.pair_no = p.pair_no and p.changes_hands
),
shop as (
  select
    *,
    'shop' as source_system, 'shop' as variation,
    'S-' || token(household_id, 'shop contact ' || person_no) as contact_id,
    given_name as first_name, surname as last_name,
    case mailbox_kind
      when 'own' then
        case when draw(household_id, 'capitals ' || person_no) < 0.1 then upper(own_email) else own_email end
      when 'shared' then family_email
      when 'placeholder' then
        choose(['none@example.com', 'noemail@example.com', 'test@example.com'],
          household_id, 'placeholder ' || person_no)
      when 'role' then choose(['info@example.com', 'office@example.org'], household_id, 'role ' || person_no)
      when 'malformed' then replace(own_email, '@', ' at ')
      else case when draw(household_id, 'empty email ' || person_no) < 0.5 then '' end
    end as email,
    case
      when moved_phone is not null then case when took_number then moved_phone end
      when phone_kind = 'own' then own_phone
      when phone_kind = 'shared' then family_phone
      when phone_kind = 'placeholder' then
        choose(['000-000', '000-000-0000', '123-456-7890', '9999999999'],
          household_id, 'placeholder phone ' || person_no)
      when phone_kind = 'malformed' then right(own_phone, 7)
      else case when draw(household_id, 'empty phone ' || person_no) < 0.5 then '' end
    end as phone,
    joined_at as created_at,
    case
      when moved_phone is not null then left_at + interval 14 day
      when changed_email then changed_email_at
      else joined_at + to_days(below(
        greatest(1, date_diff('day', joined_at, timestamp '2017-05-30')), household_id, 'updated ' || person_no
      ))
    end as updated_at
  from holders
),
members as (
  select
    *,
    case
      when changed_email then 'former address'
      when lost_number then 'capitals'
      when variation_draw < 0.22 then 'capitals'
      when variation_draw < 0.37 then 'plus tag'
      when variation_draw < 0.52 then 'nickname'
      when variation_draw < 0.67 then 'typo'
      when variation_draw < 0.77 then 'dots'
      when variation_draw < 0.90 then 'conflict'
      else 'nothing shared'
    end as variation,
    case
      when mailbox_kind in ('own', 'malformed') then own_email
      when mailbox_kind = 'shared' then family_email
    end as known_email,
    -- The loyalty program never heard that the number went to somebody else.
    case
      when moved_phone is not null then case when lost_number then moved_phone end
      when phone_kind = 'own' then own_phone
    end as known_phone
  from (select *, draw(household_id, 'loyalty variation ' || person_no) as variation_draw from holders)
  where draw(household_id, 'loyalty ' || person_no) < 0.27
    or changed_email
    or (lost_number and moved_phone is not null)
),
loyalty as (
  select
    * exclude (variation_draw, known_email, known_phone),
    'loyalty' as source_system,
    'L-' || token(household_id, 'loyalty contact ' || person_no) as contact_id,
    case variation
      when 'nickname' then nickname
      when 'typo' then left(given_name, 2) || substr(given_name, 4)
      when 'capitals' then upper(given_name)
      else given_name
    end as first_name,
    case
      when variation = 'conflict' then surname || '-' || (select min(surname) from surnames)
      when variation = 'typo' and length(surname) > 5 then left(surname, 3) || substr(surname, 5)
      else surname
    end as last_name,
    case variation
      when 'former address' then former_email
      when 'capitals' then ' ' || upper(known_email)
      when 'plus tag' then replace(known_email, '@', '+loyalty@')
      when 'nickname' then second_email
      when 'dots' then
        replace(split_part(known_email, '@', 1), '.', '') || '@' || split_part(known_email, '@', 2)
      when 'nothing shared' then second_email
      else known_email
    end as email,
    case
      when variation = 'nothing shared' then null
      when country in ('US', 'CA') then choose(
        [
          '(' || known_phone[3:5] || ') ' || known_phone[6:8] || '-' || known_phone[9:12],
          known_phone[3:5] || '-' || known_phone[6:8] || '-' || known_phone[9:12],
          '1 ' || known_phone[3:5] || ' ' || known_phone[6:8] || ' ' || known_phone[9:12]
        ],
        household_id, 'phone format ' || person_no
      )
      when country = 'GB' then '0' || known_phone[4:5] || ' ' || known_phone[6:9] || ' ' || known_phone[10:13]
    end as phone,
    joined_at + interval 40 day as created_at,
    joined_at + interval 40 day + to_days(below(60, household_id, 'loyalty updated ' || person_no)) as updated_at
  from members
),
together as (
  from shop union all by name from loyalty
)
select
  *,
  (100 + below(900, household_id, 'street number' || case variation when 'conflict' then ' conflict' else '' end))
    || ' Example Street' as address,
  draw(household_id, 'deleted ' || source_system || person_no) < 0.02 as is_deleted
from together;

-- A number that moved has an end with its old holder and a later start with its new one.
select
  case
    when moved_phone is not null then moved_phone
    when phone_kind = 'shared' then family_phone
    else own_phone
  end as phone,
  contact_id,
  source_system,
  case
    when moved_phone is not null and took_number then left_at + interval 14 day
    else created_at
  end as valid_from,
  case when moved_phone is not null and lost_number then left_at end as valid_to,
  true as _generated
from records
where household_id in (from scope_households)
  and phone is not null
  and (moved_phone is not null or phone_kind in ('own', 'shared'))

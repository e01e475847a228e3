-- Each block states only the columns it has something to say about; `union all by name` leaves the others null.
with mail as (
  -- Some confirm by a second step (all Germans do), some Canadians are customers whose consent is implied and ends,
  -- Britons bought and did not opt out.
  select
    household_id, person_no, mail_consent, joined_at, own_email, changed_email, changed_email_at,
    case when changed_email then former_email else own_email end as subject,
    country = 'DE' or draw(household_id, 'confirms ' || person_no) < 0.2 as confirms,
    case
      when country = 'GB' then 'soft_opt_in'
      when country = 'CA' and draw(household_id, 'implied ' || person_no) < 0.4 then 'implied'
      else 'consent'
    end as basis,
    case when basis = 'implied' then joined_at + interval 2 year end as basis_ends_at,
    choose(['web_form', 'loyalty_signup', 'store_tablet'], household_id, 'mail source ' || person_no)
      as joined_through
  from people
  where mail_consent is not null
),
mail_statements as (
  select *, 'token' as step, 'pending' as action, joined_at as captured_at
  from mail
  where mail_consent in ('pending', 'expired token') or (mail_consent = 'granted' and confirms)

  union all by name
  select *, 'token' as step, 'confirmed' as action, joined_at + interval 6 hour as captured_at
  from mail
  where mail_consent = 'granted' and confirms

  union all by name
  -- Days after the token had ended: changes nothing.
  select *, 'token' as step, 'confirmed' as action, joined_at + interval 12 day as captured_at
  from mail
  where mail_consent = 'expired token'

  union all by name
  select *, 'form' as step, 'granted' as action, joined_at as captured_at
  from mail
  where (mail_consent = 'granted' and not confirms) or mail_consent in ('withdrawn', 'objected', 'erased')

  union all by name
  select * replace (own_email as subject),
    'new address' as step, 'granted' as action, changed_email_at as captured_at
  from mail
  where mail_consent = 'granted' and changed_email

  union all by name
  select *, 'form' as step, 'denied' as action, joined_at as captured_at
  from mail
  where mail_consent = 'denied'

  union all by name
  select *, 'preferences' as step, mail_consent as action, timestamp '2017-06-20 18:00:00' as captured_at
  from mail
  where mail_consent in ('withdrawn', 'objected', 'erased')

  union all by name
  -- A paper form from before the withdrawal, typed in after it.
  select *, 'preferences' as step, 'withdrawn' as action, timestamp '2017-07-01 18:00:00' as captured_at
  from mail
  where mail_consent = 'late grant'

  union all by name
  select *, 'paper' as step, 'granted' as action,
    timestamp '2017-06-12 15:00:00' as captured_at, timestamp '2017-08-10 15:00:00' as recorded_at
  from mail
  where mail_consent = 'late grant'

  union all by name
  -- A tablet whose clock is far ahead, then an ordinary withdrawal.
  select *, 'tablet' as step, 'granted' as action,
    timestamp '2031-01-01 00:00:00' as captured_at, timestamp '2017-06-15 15:00:00' as recorded_at
  from mail
  where mail_consent = 'future clock'

  union all by name
  select *, 'preferences' as step, 'withdrawn' as action, timestamp '2017-07-10 18:00:00' as captured_at
  from mail
  where mail_consent = 'future clock'
),
mail_rows as (
  select
    household_id, person_no, 'email' as subject_type, subject, 'email' as channel,
    action, captured_at, recorded_at,
    case when action in ('granted', 'confirmed', 'pending') then basis end as legal_basis,
    case step
      when 'new address' then 'web_form'
      when 'preferences' then 'preference_center'
      when 'paper' then 'paper_form'
      when 'tablet' then 'store_tablet'
      else joined_through
    end as source,
    case step
      when 'token' then 'token-' || token(household_id, 'mail token ' || person_no)
      else 'proof-' || token(household_id, 'mail proof ' || person_no || step || action)
    end as proof,
    case
      when action = 'pending' then captured_at + interval 3 day
      when action in ('granted', 'confirmed') then basis_ends_at
    end as expires_at
  from mail_statements
),
-- Two records of one person that disagree: the second address said no.
disagreeing_rows as (
  select
    household_id, person_no, 'email' as subject_type, second_email as subject, 'email' as channel,
    'withdrawn' as action, timestamp '2017-05-20 16:00:00' as captured_at, 'loyalty_app' as source,
    'proof-' || token(household_id, 'second address ' || person_no) as proof
  from records
  where variation = 'nickname'
    and mail_consent = 'granted'
    and draw(household_id, 'disagrees ' || person_no) < 0.5
),
sms_rows as (
  select
    household_id, person_no, 'phone' as subject_type, own_phone as subject, 'sms' as channel,
    -- Who later lost the number had agreed; whoever has it next did not.
    case when grants_sms or lost_number then 'granted' else 'denied' end as action,
    case when grants_sms or lost_number then 'consent' end as legal_basis,
    joined_at as captured_at,
    choose(['web_form', 'keyword_join', 'store_tablet'], household_id, 'sms source ' || person_no) as source,
    'proof-' || token(household_id, 'sms proof ' || person_no) as proof
  from people
  where phone_kind = 'own'
    and not took_number
    and (grants_sms or lost_number or draw(household_id, 'denies sms ' || person_no) < 0.4)
),
ads_rows as (
  select
    household_id, person_no, 'email' as subject_type, own_email as subject, 'ads' as channel,
    case when grants_ads then 'granted' else 'denied' end as action,
    case when grants_ads then 'consent' end as legal_basis,
    joined_at as captured_at, 'cookie_banner' as source,
    'proof-' || token(household_id, 'ads proof ' || person_no) as proof
  from people
  where mailbox_kind = 'own' and (grants_ads or draw(household_id, 'denies ads ' || person_no) < 0.6)
),
-- An erasure closes every channel that was ever spoken about.
erased_rows as (
  select
    household_id, person_no, s.subject_type, s.subject, s.channel,
    'erased' as action, timestamp '2017-06-20 18:00:00' as captured_at, 'privacy_request' as source,
    'proof-' || token(household_id, 'erasure ' || person_no || s.channel) as proof
  from (from sms_rows union all by name from ads_rows) s
  join people p using (household_id, person_no)
  where p.mail_consent = 'erased'
),
-- The browser says no before anybody asks; it speaks for the device until a login ties the device to a person.
gpc_rows as (
  select distinct on (anonymous_id)
    household_id, person_no, 'anonymous_id' as subject_type, anonymous_id as subject, 'ads' as channel,
    'objected' as action, 'gpc_signal' as source,
    timestamp '2017-06-05 14:00:00' + to_minutes(below(40000, household_id, 'gpc seen ' || anonymous_id))
      as captured_at,
    'proof-' || token(household_id, 'gpc ' || anonymous_id) as proof
  from devices
  where has_gpc
  order by anonymous_id, person_no
),
-- What the providers told us: STOP, unsubscribe links, complaints.
provider_rows as (
  select
    household_id, person_no, case channel when 'sms' then 'phone' else 'email' end as subject_type,
    recipient as subject, channel, case outcome when 'complained' then 'objected' else 'withdrawn' end as action,
    sent_at + interval 84000 second as captured_at, 'provider_webhook' as source, 'message-' || message_id as proof
  from sends
  where outcome in ('stop', 'unsubscribed', 'complained')
),
statements as (
  from mail_rows
  union all by name from disagreeing_rows
  union all by name from sms_rows
  union all by name from ads_rows
  union all by name from erased_rows
  union all by name from gpc_rows
  union all by name from provider_rows
),
recorded as (
  select
    s.* replace (
      coalesce(recorded_at, captured_at + to_seconds(below(90, household_id, 'recorded ' || proof || action)))
        as recorded_at,
      -- Sources write the same address in their own way.
      case
        when subject_type = 'email' and draw(household_id, 'capitals in ' || proof) < 0.1 then upper(subject)
        else subject
      end as subject
    ),
    case channel when 'ads' then 'ads_share' else 'marketing' end as purpose,
    case channel when 'email' then 'newsletter' when 'sms' then 'offers' end as program,
    case channel when 'ads' then 'privacy-2016-11' else 'marketing-2016-11' end as policy_version,
    p.jurisdiction
  from statements s
  join people p using (household_id, person_no)
)
select
  'consent-' || token(household_id, proof || channel || purpose || action || captured_at) as event_id,
  subject_type, subject, channel, purpose, program, action, legal_basis, jurisdiction, captured_at, recorded_at,
  source, policy_version, proof, expires_at,
  true as _generated
from recorded
where household_id in (from scope_households)
  and recorded_at < (select as_of from scope)

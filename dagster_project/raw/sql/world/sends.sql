-- One row per message of a real campaign to a person of a targeted household, with how the person reacted.
-- A person hears of a campaign by e-mail on its first day, by text message three days later, and by e-mail again
-- after ten days; never again on a channel once they said no there.
create or replace temp table sends as
with planned as (
  select * from (values ('email', 0), ('sms', 3), ('email', 10)) as t (channel, after_days)
),
addressed as (
  select
    p.*, t.campaign_id, n.channel, c.end_date,
    'campaign ' || t.campaign_id || ' ' || n.channel || n.after_days || ' to ' || p.person_no as send_key,
    c.start_date + to_days(n.after_days)
      + to_minutes(900 + below(240, p.household_id, 'send minute ' || t.campaign_id || p.person_no)) as sent_at
  from publisher_campaigns t
  join publisher_campaign_descriptions c using (campaign_id)
  join people p using (household_id)
  join planned n on case n.channel when 'email' then p.grants_email else p.grants_sms end
),
reacted as (
  select
    *,
    channel = 'email' and changed_email and sent_at < changed_email_at as uses_former_email,
    draw(household_id, 'reaction ' || send_key) as reaction,
    draw(household_id, 'machine ' || send_key) < 0.25 as is_opened_by_machine,
    channel || '-' || token(household_id, send_key) as message_id
  from addressed
  where sent_at <= end_date
),
outcomes as (
  select
    household_id, person_no, campaign_id, channel, send_key, sent_at, message_id, is_opened_by_machine,
    uses_former_email,
    case
      when uses_former_email then former_email
      when channel = 'email' then own_email
      else own_phone
    end as recipient,
    case
      when uses_former_email and sent_at >= timestamp '2017-08-01' then 'bounced'
      when reaction < 0.005 then 'bounced'
      when channel = 'sms' and reaction < 0.018 then 'stop'
      when channel = 'sms' and reaction < 0.12 then 'clicked'
      when channel = 'sms' then 'delivered'
      when reaction < 0.009 then 'complained'
      when reaction < 0.018 then 'unsubscribed'
      when reaction < 0.09 then 'clicked'
      when reaction < 0.34 then 'opened'
      else 'delivered'
    end as outcome
  from reacted
)
select *
from outcomes
qualify sent_at <= coalesce(
  min(case when outcome in ('complained', 'unsubscribed', 'stop') then sent_at end)
    over (partition by household_id, person_no, channel),
  sent_at
);

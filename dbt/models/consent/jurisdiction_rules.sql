-- Law as data, not legal advice. A use without a `legal_bases` row is not allowed in that place. A row for a region
-- (US-FL) narrows its country's. No date in checked_on: nobody has compared the value with the law's own text yet.
select
    jurisdiction,
    channel,
    purpose,
    rule,
    value,
    source,
    cast(checked_on as date) as checked_on
from (
    values
    ('US', 'email', 'marketing', 'legal_bases', 'consent', 'house rule; CAN-SPAM asks for less', null),
    ('US', 'sms', 'marketing', 'legal_bases', 'consent', '47 CFR 64.1200(a)(2)', null),
    ('US', 'ads', 'ads_share', 'legal_bases', 'consent', 'house rule; CCPA regulations 7025 honour opt-outs', null),
    ('US', 'sms', 'marketing', 'opens_at', '08:00', '47 CFR 64.1200(c)(1)', '2026-11-01'),
    ('US', 'sms', 'marketing', 'closes_at', '21:00', '47 CFR 64.1200(c)(1)', '2026-11-01'),
    ('US-FL', 'sms', 'marketing', 'closes_at', '20:00', 'Florida Statutes 501.616', null),
    ('CA', 'email', 'marketing', 'legal_bases', 'consent,implied', 'CASL section 10', null),
    ('CA', 'sms', 'marketing', 'legal_bases', 'consent,implied', 'CASL section 10', null),
    ('CA', 'ads', 'ads_share', 'legal_bases', 'consent', 'house rule', null),
    ('CA', 'sms', 'marketing', 'opens_at', '10:00', 'house rule: telemarketing hours of a weekend', null),
    ('CA', 'sms', 'marketing', 'closes_at', '18:00', 'house rule: telemarketing hours of a weekend', null),
    ('GB', 'email', 'marketing', 'legal_bases', 'consent,soft_opt_in', 'PECR regulation 22', null),
    ('GB', 'sms', 'marketing', 'legal_bases', 'consent,soft_opt_in', 'PECR regulation 22', null),
    ('GB', 'ads', 'ads_share', 'legal_bases', 'consent', 'UK GDPR 6(1)(a)', null),
    ('GB', 'sms', 'marketing', 'opens_at', '08:00', 'house rule', null),
    ('GB', 'sms', 'marketing', 'closes_at', '21:00', 'house rule', null),
    ('DE', 'email', 'marketing', 'legal_bases', 'consent', 'UWG section 7', null),
    ('DE', 'sms', 'marketing', 'legal_bases', 'consent', 'UWG section 7', null),
    ('DE', 'ads', 'ads_share', 'legal_bases', 'consent', 'GDPR 6(1)(a)', null),
    ('DE', 'sms', 'marketing', 'opens_at', '09:00', 'house rule', null),
    ('DE', 'sms', 'marketing', 'closes_at', '20:00', 'house rule', null)
) as rules (jurisdiction, channel, purpose, rule, value, source, checked_on)

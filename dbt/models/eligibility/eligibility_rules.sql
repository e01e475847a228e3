-- The order decides only which blocker is named first. A deferral makes a message wait; it does not end membership of
-- a list, otherwise every mirrored list would empty each night.
select rule, decision_order, is_deferral
from (
    values
    ('erased', 1, false),
    ('suppressed', 2, false),
    ('objection', 3, false),
    ('jurisdiction', 4, false),
    ('consent', 5, false),
    ('unreachable', 6, false),
    ('frequency_cap', 7, true),
    ('sms_quiet_hours', 8, true)
) as rules (rule, decision_order, is_deferral)

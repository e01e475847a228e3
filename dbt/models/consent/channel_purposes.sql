-- The uses of a person's data that a sync can name. What is not listed here is used for nothing.
select channel, purpose
from (
    values
    ('email', 'marketing'),
    ('sms', 'marketing'),
    ('ads', 'ads_share')
) as uses (channel, purpose)

-- How many messages a person gets at most. Each row limits the channel in `channel` by the messages counted in
-- `counted_channel`; `all` counts every channel together.
select channel, counted_channel, max_messages, window_days
from (
    values
    ('email', 'email', 4, 7),
    ('email', 'all', 6, 7),
    ('sms', 'sms', 2, 7),
    ('sms', 'all', 6, 7)
) as caps (channel, counted_channel, max_messages, window_days)

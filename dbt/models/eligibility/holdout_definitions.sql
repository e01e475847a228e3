-- Who is never reached, so that the effect on the rest can be measured. An assignment is for ever: a changed share or
-- salt only concerns people who come later, so give a new experiment a new name.
select
    holdout,
    cast(share as decimal(5, 4)) as share,
    salt
from (
    values
    ('global_5pct', 0.05, 'global-2017'),
    ('loyal_email_20pct', 0.20, 'loyal-email-2017')
) as definitions (holdout, share, salt)

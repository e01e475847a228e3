-- When a person's identifiers or programs disagree, the state with the lowest number wins.
select state, restrictiveness, has_consent
from (
    values
    ('erased', 1, false),
    ('objected', 2, false),
    ('withdrawn', 3, false),
    ('denied', 4, false),
    ('unreadable', 5, false),
    ('pending', 6, false),
    ('unproven', 7, false),
    ('unknown_jurisdiction', 8, false),
    ('expired', 9, false),
    ('granted', 10, true),
    ('missing', 11, false)
) as states (state, restrictiveness, has_consent)

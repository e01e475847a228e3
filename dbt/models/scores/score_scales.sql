-- How points become what people read. The dimensions weigh into the lead score; a label holds from its minimum upwards.
select
    scale,
    label,
    cast(minimum as integer) as minimum
from (
    values
    ('fit_grade', 'A', 70),
    ('fit_grade', 'B', 50),
    ('fit_grade', 'C', 30),
    ('fit_grade', 'D', 0),
    ('score_band', 'hot', 70),
    ('score_band', 'warm', 45),
    ('score_band', 'cool', 20),
    ('score_band', 'cold', 0)
) as scales (scale, label, minimum)

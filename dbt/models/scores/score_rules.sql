-- The scorecard. Fit is who a person is and does not fade; engagement is what they do and halves with every half-life.
-- A cap limits what one signal can add up to, so that ten clicks in a day are not ten intents; for negative signals it
-- is a floor.
select
    signal,
    dimension,
    direction,
    cast(points as decimal(8, 2)) as points,
    cast(half_life_days as integer) as half_life_days,
    cast(cap as decimal(8, 2)) as cap
from (
    values
    ('reachable_by_email', 'fit', 'positive', 20, null, 20),
    ('reachable_by_phone', 'fit', 'positive', 10, null, 10),
    ('known_address', 'fit', 'positive', 10, null, 10),
    ('family_household', 'fit', 'positive', 10, null, 10),
    ('frequent_buyer', 'fit', 'positive', 15, null, 15),
    ('high_spender', 'fit', 'positive', 25, null, 25),
    ('long_customer', 'fit', 'positive', 10, null, 10),
    ('no_contact_details', 'fit', 'negative', -30, null, -30),
    ('order_placed', 'engagement', 'positive', 6, 21, 45),
    ('coupon_redeemed', 'engagement', 'positive', 8, 45, 16),
    ('message_clicked', 'engagement', 'positive', 5, 14, 15),
    ('message_opened', 'engagement', 'positive', 1, 7, 4),
    ('product_viewed', 'engagement', 'positive', 0.5, 7, 5),
    ('cart_filled', 'engagement', 'positive', 4, 7, 12),
    ('checkout_started', 'engagement', 'positive', 5, 14, 10),
    ('unsubscribed', 'engagement', 'negative', -20, 180, -20),
    ('bounced', 'engagement', 'negative', -10, 90, -10),
    ('complained', 'engagement', 'negative', -40, 365, -40)
) as rules (signal, dimension, direction, points, half_life_days, cap)

with final (identifier_type, record_type, max_records) as (
    values
        -- An address or number on more contacts than this is a household's, a shop's or a cashier's own.
        ('email', 'contact', 5),
        ('phone', 'contact', 5),
        ('household', 'contact', 20),
        -- One person collects many devices, since browsers forget them; hundreds on one login are a shared account.
        ('email', 'device', 200)
)

select * from final

with final (field, field_group, strategy) as (
    values
        -- Fields of one group survive together, from one record: a street in one town never meets a postal code of another.
        ('first_name', 'name', 'source_first'),
        ('last_name', 'name', 'source_first'),
        ('postal_code', 'address', 'source_first'),
        ('city', 'address', 'source_first'),
        ('region', 'address', 'source_first'),
        ('country', 'address', 'source_first'),
        ('time_zone', 'time_zone', 'source_first'),
        ('household_id', 'household', 'source_first'),
        -- What is sent to must be what is read today.
        ('email', 'email', 'newest_first'),
        ('phone', 'phone', 'newest_first')
)

select * from final

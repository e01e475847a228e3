with final (source_system, field_group, priority) as (
    values
        -- Lower wins. A source without a line here comes after all that have one.
        ('shop', 'name', 1),
        ('loyalty', 'name', 2),
        ('shop', 'address', 1),
        ('loyalty', 'address', 2),
        ('shop', 'time_zone', 1),
        ('loyalty', 'time_zone', 2),
        ('loyalty', 'household', 1),
        ('shop', 'household', 2),
        ('shop', 'email', 1),
        ('loyalty', 'email', 2),
        ('web', 'email', 3),
        ('shop', 'phone', 1),
        ('loyalty', 'phone', 2)
)

select * from final

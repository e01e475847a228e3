with addresses as (

    select * from {{ ref('int_profiles__addresses') }}

),

ranked as (

    select
        *,
        row_number() over (
            partition by identifier_type, match_key
            order by
                case when is_dated then 0 else 1 end,
                case when is_dated then observed_at end desc,
                first_observed_at,
                person_id
        ) as place
    from addresses

),

-- Whoever had the address first keeps it: a rule that does not change hands when a record is merely touched.
final as (

    select
        identifier_type,
        match_key,
        person_id
    from ranked
    where place = 1

)

select * from final

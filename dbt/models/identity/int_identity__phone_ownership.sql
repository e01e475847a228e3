with contacts as (

    select * from {{ ref('int_identity__contacts') }}

),

phone_history as (

    select * from {{ ref('stg_crm__phone_history') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

known_periods as (

    select
        phone_history.phone,
        phone_history.contact_key,
        phone_history.valid_from,
        phone_history.valid_to
    from phone_history
    inner join contacts
        on contacts.contact_key = phone_history.contact_key
    cross join clock
    where phone_history.valid_from <= clock.as_of

),

-- A record that names a number without a dated period has it until somebody else is known to have taken it over.
undated as (

    select
        contacts.phone,
        contacts.contact_key,
        contacts.created_at as valid_from,
        min(takeovers.valid_from) as valid_to
    from contacts
    left join known_periods
        on known_periods.phone = contacts.phone
        and known_periods.contact_key = contacts.contact_key
    left join known_periods as takeovers
        on takeovers.phone = contacts.phone
        and takeovers.contact_key <> contacts.contact_key
        and takeovers.valid_from > contacts.updated_at
    where contacts.phone is not null
        and known_periods.contact_key is null
    group by contacts.phone, contacts.contact_key, contacts.created_at

),

periods as (

    select *, true as is_dated from known_periods
    union all
    select *, false as is_dated from undated

),

final as (

    select
        periods.phone,
        periods.contact_key,
        periods.valid_from,
        periods.valid_to,
        periods.is_dated,
        coalesce(periods.valid_to > clock.as_of, true) as is_current
    from periods
    cross join clock

)

select * from final

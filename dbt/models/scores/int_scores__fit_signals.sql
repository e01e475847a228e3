with profiles as (

    select * from {{ ref('dim_profiles') }}

),

traits as (

    select * from {{ ref('dim_profile_traits') }}

),

described as (

    select
        profiles.person_id,
        profiles.email is not null as has_email,
        profiles.phone is not null as has_phone,
        profiles.postal_code is not null as has_address,
        traits.kids_count,
        traits.frequency_quintile,
        traits.monetary_quintile,
        {{ dbt.datediff('traits.first_order_on', 'traits.last_order_on', 'day') }} as days_as_customer
    from profiles
    left join traits on profiles.person_id = traits.person_id

),

final as (

    select person_id, 'reachable_by_email' as signal from described where has_email
    union all
    select person_id, 'reachable_by_phone' as signal from described where has_phone
    union all
    select person_id, 'no_contact_details' as signal from described where not has_email and not has_phone
    union all
    select person_id, 'known_address' as signal from described where has_address
    union all
    -- The publisher's bands are 0, 1, 2, 3+, and None/Unknown.
    select person_id, 'family_household' as signal from described where kids_count in ('1', '2', '3+')
    union all
    select person_id, 'frequent_buyer' as signal from described where frequency_quintile >= 4
    union all
    select person_id, 'high_spender' as signal from described where monetary_quintile >= 4
    union all
    select person_id, 'long_customer' as signal from described where days_as_customer >= 60

)

select * from final

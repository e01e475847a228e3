with identity_map as (

    select * from {{ ref('identity_map') }} where is_current

),

contacts as (

    select * from {{ ref('int_profiles__contacts') }}

),

addresses as (

    select * from {{ ref('int_profiles__addresses') }}

),

survivors as (

    select distinct
        person_id,
        field_group,
        record_key,
        source_system,
        observed_at,
        case when field_group in ('email', 'phone') then value end as address
    from {{ ref('fct_profile_values') }}
    where is_survivor

),

persons as (

    select distinct person_id from identity_map where identifier_type in ('contact', 'email')

),

sightings as (

    select person_id, created_at as first_seen_at, updated_at as last_seen_at, is_generated from contacts
    union all
    select person_id, first_observed_at, observed_at, is_generated from addresses

),

lifetimes as (

    select
        person_id,
        min(first_seen_at) as created_at,
        max(last_seen_at) as updated_at,
        max(case when is_generated then 1 else 0 end) = 1 as is_generated
    from sightings
    group by person_id

),

final as (

    select
        persons.person_id,
        household.household_id,
        names.first_name,
        names.last_name,
        email.address as email,
        phone.address as phone,
        address.postal_code,
        address.city,
        address.region,
        address.country,
        time_zone.time_zone,
        name_survivor.source_system as first_name_source,
        name_survivor.observed_at as first_name_observed_at,
        email.source_system as email_source,
        email.observed_at as email_observed_at,
        phone.source_system as phone_source,
        phone.observed_at as phone_observed_at,
        lifetimes.created_at,
        lifetimes.updated_at,
        lifetimes.is_generated
    from persons
    inner join lifetimes
        on lifetimes.person_id = persons.person_id
    {%- for group, alias in [
        ('household', 'household'), ('name', 'names'), ('address', 'address'), ('time_zone', 'time_zone')
    ] %}
    left join survivors as {{ group }}_survivor
        on {{ group }}_survivor.person_id = persons.person_id
        and {{ group }}_survivor.field_group = '{{ group }}'
    left join contacts as {{ alias }}
        on {{ alias }}.contact_key = {{ group }}_survivor.record_key
    {%- endfor %}
    left join survivors as email
        on email.person_id = persons.person_id
        and email.field_group = 'email'
    left join survivors as phone
        on phone.person_id = persons.person_id
        and phone.field_group = 'phone'

)

select * from final

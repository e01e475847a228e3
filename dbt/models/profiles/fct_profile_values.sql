with contacts as (

    select * from {{ ref('int_profiles__contacts') }}

),

addresses as (

    select * from {{ ref('int_profiles__addresses') }}

),

owners as (

    select * from {{ ref('int_profiles__address_owners') }}

),

undeliverable as (

    select * from {{ ref('int_profiles__undeliverable_addresses') }}

),

refused as (

    select * from {{ ref('int_identity__refused_identifiers') }}

),

fields as (

    select * from {{ ref('survivorship_fields') }}

),

sources as (

    select * from {{ ref('survivorship_sources') }}

),

of_contacts as (

    {% for field in [
        'first_name', 'last_name', 'postal_code', 'city', 'region', 'country', 'time_zone', 'household_id'
    ] -%}
    select
        person_id,
        '{{ field }}' as field,
        cast({{ field }} as {{ dbt.type_string() }}) as value,
        contact_key as record_key,
        source_system,
        updated_at as observed_at,
        cast(null as {{ dbt.type_string() }}) as ruled_out_because
    from contacts
    where {{ field }} is not null
    {% if not loop.last %}
    union all

    {% endif %}
    {%- endfor %}
),

of_addresses as (

    select
        addresses.person_id,
        addresses.identifier_type as field,
        addresses.address as value,
        addresses.record_key,
        addresses.source_system,
        addresses.observed_at,
        case
            when refused.reason is not null then refused.reason
            when undeliverable.address is not null then 'undeliverable'
            when owners.person_id <> addresses.person_id then 'owned_by_another_person'
        end as ruled_out_because
    from addresses
    inner join owners
        on owners.identifier_type = addresses.identifier_type
        and owners.match_key = addresses.match_key
    left join refused
        on refused.identifier_type = addresses.identifier_type
        and refused.identifier = addresses.match_key
    left join undeliverable
        on undeliverable.identifier_type = addresses.identifier_type
        and undeliverable.address = addresses.address

),

observed as (

    select * from of_contacts
    union all
    select * from of_addresses

),

group_sizes as (

    select field_group, count(*) as field_count from fields group by field_group

),

weighed as (

    select
        observed.*,
        fields.field_group,
        fields.strategy,
        coalesce(sources.priority, 1000) as priority,
        count(*) over (
            partition by observed.person_id, fields.field_group, observed.record_key
        ) as filled_count,
        group_sizes.field_count
    from observed
    inner join fields
        on fields.field = observed.field
    inner join group_sizes
        on group_sizes.field_group = fields.field_group
    left join sources
        on sources.source_system = observed.source_system
        and sources.field_group = fields.field_group

),

ranked as (

    select
        *,
        dense_rank() over (
            partition by person_id, field_group, case when ruled_out_because is null then 0 else 1 end
            order by
                case when filled_count >= field_count then 0 else 1 end,
                case when strategy = 'source_first' then priority end,
                observed_at desc,
                priority,
                filled_count desc,
                record_key
        ) as place
    from weighed

),

final as (

    select
        person_id,
        field,
        value,
        field_group,
        record_key,
        source_system,
        observed_at,
        ruled_out_because is null and place = 1 as is_survivor,
        case when place > 1 then coalesce(ruled_out_because, 'outranked') else ruled_out_because end as lost_because
    from ranked

)

select * from final

with identity_map as (

    select * from {{ ref('identity_map') }} where is_current

),

addresses as (

    select * from {{ ref('int_profiles__addresses') }}

),

devices as (

    select * from {{ ref('int_identity__identifiers') }}
    where record_type = 'device'
        and identifier_type = 'email'

),

refused as (

    select * from {{ ref('int_identity__refused_identifiers') }}

),

held as (

    select person_id, identifier_type, match_key, address as identifier from addresses
    union
    select person_id, identifier_type, match_key, match_key from addresses

),

held_devices as (

    select
        addresses.person_id,
        devices.record_id as anonymous_id
    from devices
    inner join addresses
        on addresses.identifier_type = 'email'
        and addresses.match_key = devices.identifier
    left join refused
        on refused.identifier_type = 'email'
        and refused.identifier = devices.identifier
    where refused.identifier is null

),

-- What several persons hold is listed for each of them: an objection made there must reach them all.
final as (

    select
        person_id,
        identifier_type,
        identifier
    from identity_map

    union

    select
        held.person_id,
        held.identifier_type,
        held.identifier
    from held
    left join refused
        on refused.identifier_type = held.identifier_type
        and refused.identifier = held.match_key
        and refused.reason <> 'fan_out'
    where refused.identifier is null

    union

    select
        person_id,
        'anonymous_id',
        anonymous_id
    from held_devices

)

select * from final

with contacts as (

    select * from {{ ref('int_identity__contacts') }}

),

identifiers as (

    select * from {{ ref('int_identity__identifiers') }}

),

refused as (

    select * from {{ ref('int_identity__refused_identifiers') }}

),

given_names as (

    select * from {{ ref('int_identity__given_names') }}

),

nicknames as (

    select * from {{ ref('identity_nicknames') }}

),

linkable as (

    select
        identifiers.identifier_type,
        identifiers.identifier,
        identifiers.record_id as contact_key,
        identifiers.first_seen_at,
        identifiers.valid_to
    from identifiers
    left join refused
        on refused.identifier_type = identifiers.identifier_type
        and refused.identifier = identifiers.identifier
    where identifiers.record_type = 'contact'
        and identifiers.identifier_type in ('email', 'phone', 'household')
        and refused.identifier is null

),

-- Two owners of a number one after the other never meet here: their periods do not overlap.
shared as (

    select
        one.identifier_type,
        one.identifier,
        one.contact_key as contact_a,
        other.contact_key as contact_b,
        max(greatest(one.first_seen_at, other.first_seen_at)) as seen_at
    from linkable as one
    inner join linkable as other
        on other.identifier_type = one.identifier_type
        and other.identifier = one.identifier
        and other.contact_key > one.contact_key
        and (one.valid_to is null or one.valid_to > other.first_seen_at)
        and (other.valid_to is null or other.valid_to > one.first_seen_at)
    group by one.identifier_type, one.identifier, one.contact_key, other.contact_key

),

-- Both directions, and two nicknames of one given name are not the same name: Lexi need not be Alex.
same_by_nickname as (

    select nickname as name_a, given_name as name_b from nicknames
    union
    select given_name, nickname from nicknames

),

named as (

    select
        shared.*,
        coalesce(a.phone <> b.phone, false) as has_other_phone,
        -- Two records of one system with nothing in common but household or mailbox and name: father and son.
        a.source_system = b.source_system
        and (shared.identifier_type = 'household' or coalesce(a.phone <> b.phone, false)) as is_kept_apart,
        a.first_key as first_a,
        b.first_key as first_b,
        a.last_key as last_a,
        b.last_key as last_b
    from shared
    inner join contacts as a
        on a.contact_key = shared.contact_a
    inner join contacts as b
        on b.contact_key = shared.contact_b

),

compared as (

    select
        named.*,
        case
            when named.first_a is null or named.first_b is null then 'unknown'
            when named.first_a = named.first_b or same_by_nickname.name_a is not null then 'same'
            when least(length(named.first_a), length(named.first_b)) = 1
                and left(named.first_a, 1) = left(named.first_b, 1) then 'unknown'
            when {{ identity_is_near('named.first_a', 'named.first_b') }}
                and {{ identity_is_misspelling('given_a', 'given_b') }} then 'near'
            else 'different'
        end as first_names,
        case
            when named.last_a is null or named.last_b is null then 'unknown'
            when named.last_a = named.last_b then 'same'
            when '-' || named.last_a || '-' like '%-' || named.last_b || '-%'
                or '-' || named.last_b || '-' like '%-' || named.last_a || '-%' then 'near'
            when {{ identity_is_near('named.last_a', 'named.last_b') }} then 'near'
            else 'different'
        end as last_names
    from named
    left join same_by_nickname
        on same_by_nickname.name_a = named.first_a
        and same_by_nickname.name_b = named.first_b
    left join given_names as given_a
        on given_a.name = named.first_a
    left join given_names as given_b
        on given_b.name = named.first_b

),

final as (

    select
        identifier_type,
        identifier,
        contact_a,
        contact_b,
        is_kept_apart,
        has_other_phone,
        first_names,
        last_names,
        case
            when first_names = 'different' or last_names = 'different' then 'conflict'
            when first_names = 'same' and last_names in ('same', 'near') then 'match'
            when first_names = 'near' and last_names = 'same' then 'match'
            else 'unknown'
        end as verdict,
        seen_at
    from compared

)

select * from final

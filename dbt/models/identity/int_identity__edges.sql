with identifiers as (

    select * from {{ ref('int_identity__identifiers') }}

),

refused as (

    select * from {{ ref('int_identity__refused_identifiers') }}

),

pairs as (

    select * from {{ ref('int_identity__contact_pairs') }}

),

undecided as (

    select * from {{ ref('int_identity__undecided_pairs') }}

),

contested_emails as (

    select distinct identifier as email
    from pairs
    where identifier_type = 'email'
        and verdict = 'conflict'

),

-- An e-mail joins everybody who has it, a phone or household nobody by itself: those need the name as well.
of_holders as (

    select
        'contact:' || record_id as node_a,
        identifier_type || ':' || identifier as node_b,
        case identifier_type when 'email' then 'same_email' else 'owns_phone' end as rule,
        case identifier_type when 'email' then 'link' else 'attach' end as edge_role,
        identifier_type,
        identifier,
        first_seen_at as seen_at
    from identifiers
    where record_type = 'contact'
        and identifier_type in ('email', 'phone')
        and is_current

),

of_logins as (

    select
        'anonymous_id:' || record_id as node_a,
        'email:' || identifier as node_b,
        'login' as rule,
        'attach' as edge_role,
        identifier_type,
        identifier,
        first_seen_at as seen_at
    from identifiers
    where record_type = 'device'
        and identifier_type = 'email'

),

of_namesakes as (

    select
        'contact:' || pairs.contact_a as node_a,
        'contact:' || pairs.contact_b as node_b,
        'same_' || pairs.identifier_type || '_and_name' as rule,
        'link' as edge_role,
        pairs.identifier_type,
        pairs.identifier,
        pairs.seen_at,
        case
            when undecided.contact_a is not null then 'undecided_name'
            when pairs.is_kept_apart then 'namesake_in_one_system'
            when pairs.identifier_type = 'household' and pairs.has_other_phone then 'namesake_with_other_phone'
        end as refused_because
    from pairs
    left join undecided
        on undecided.identifier_type = pairs.identifier_type
        and undecided.identifier = pairs.identifier
        and undecided.contact_a = pairs.contact_a
        and undecided.contact_b = pairs.contact_b
    where pairs.verdict = 'match'

),

of_identifiers as (

    select * from of_holders
    union all
    select * from of_logins

),

judged as (

    select
        of_identifiers.node_a,
        of_identifiers.node_b,
        of_identifiers.rule,
        of_identifiers.edge_role,
        of_identifiers.identifier_type,
        of_identifiers.identifier,
        of_identifiers.seen_at,
        coalesce(
            refused.reason,
            case when contested_emails.email is not null then 'names_conflict' end
        ) as refused_because
    from of_identifiers
    left join refused
        on refused.identifier_type = of_identifiers.identifier_type
        and refused.identifier = of_identifiers.identifier
    left join contested_emails
        on of_identifiers.identifier_type = 'email'
        and contested_emails.email = of_identifiers.identifier

    union all

    select * from of_namesakes

),

final as (

    select
        node_a,
        node_b,
        rule,
        edge_role,
        cast(1 as decimal(5, 4)) as probability,
        identifier_type,
        identifier,
        seen_at,
        refused_because
    from judged

)

select * from final

with edges as (

    select * from {{ ref('int_identity__edges') }}

),

clusters as (

    select * from {{ ref('int_identity__clusters') }}

),

identifiers as (

    select * from {{ ref('int_identity__identifiers') }}

),

refused_edges as (

    select
        identifier_type,
        identifier,
        refused_because as reason,
        count(*) as edge_count
    from edges
    where refused_because is not null
    group by identifier_type, identifier, refused_because

),

-- Phones and devices that lead to several persons.
unattached as (

    select
        case edges.rule when 'login' then 'anonymous_id' else 'phone' end as identifier_type,
        case edges.rule
            when 'login' then {{ identity_node_identifier('edges.node_a') }}
            else {{ identity_node_identifier('edges.node_b') }}
        end as identifier
    from edges
    where edges.edge_role = 'attach'
        and edges.refused_because is null

),

several_persons as (

    select
        unattached.identifier_type,
        unattached.identifier,
        'several_persons' as reason,
        count(*) as edge_count
    from unattached
    left join clusters
        on clusters.identifier_type = unattached.identifier_type
        and clusters.identifier = unattached.identifier
    where clusters.identifier is null
    group by unattached.identifier_type, unattached.identifier

),

oversized as (

    select
        identifier_type,
        identifier,
        'cluster_too_large' as reason,
        linked_count as edge_count
    from clusters
    where is_oversized

),

findings as (

    select * from refused_edges
    union all
    select * from several_persons
    union all
    select * from oversized

),

final as (

    select
        findings.identifier_type,
        findings.identifier,
        findings.reason,
        findings.edge_count,
        count(distinct identifiers.record_id) as record_count
    from findings
    left join identifiers
        on identifiers.identifier_type = findings.identifier_type
        and identifiers.identifier = findings.identifier
        and identifiers.is_current
    group by findings.identifier_type, findings.identifier, findings.reason, findings.edge_count

)

select * from final

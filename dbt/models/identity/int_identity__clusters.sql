with components as (

    select * from {{ ref('int_identity__components') }}

),

edges as (

    select * from {{ ref('int_identity__edges') }}

),

identifiers as (

    select * from {{ ref('int_identity__identifiers') }}

),

first_sightings as (

    select
        identifier_type || ':' || identifier as node,
        identifier_type,
        identifier,
        min(first_seen_at) as first_seen_at
    from identifiers
    where is_current
        and identifier_type <> 'household'
    group by identifier_type, identifier

),

-- A phone or a device follows the person all its edges lead to. One that leads to two persons, or somewhere we
-- refuse to look, follows nobody: attaching never merges.
attachable as (

    select
        case edges.rule when 'login' then edges.node_a else edges.node_b end as node,
        min(components.component) as component
    from edges
    left join components
        on edges.refused_because is null
        and components.node = case edges.rule when 'login' then edges.node_b else edges.node_a end
    where edges.edge_role = 'attach'
    group by case edges.rule when 'login' then edges.node_a else edges.node_b end
    having count(distinct components.component) = 1
        and count(components.component) = count(*)

),

members as (

    select node, component, false as is_attached from components
    union all
    select node, component, true as is_attached from attachable

),

sized as (

    select
        members.node,
        members.component,
        members.is_attached,
        sum(case when members.is_attached then 0 else 1 end) over (partition by members.component) as linked_count
    from members

),

final as (

    select
        first_sightings.identifier_type,
        first_sightings.identifier,
        sized.component,
        sized.is_attached,
        first_sightings.first_seen_at,
        sized.linked_count,
        sized.linked_count > {{ var('identity_max_cluster_size', 50) }} as is_oversized
    from sized
    inner join first_sightings
        on first_sightings.node = sized.node

)

select * from final

with edges as (

    select * from {{ ref('int_identity__edges') }}

),

final as (

    select
        node_a,
        node_b,
        rule,
        edge_role,
        probability,
        identifier_type,
        identifier,
        seen_at
    from edges
    where refused_because is null

)

select * from final

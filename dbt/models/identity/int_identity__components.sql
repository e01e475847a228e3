{{ config(materialized='connected_components') }}

with contacts as (

    select * from {{ ref('int_identity__contacts') }}

),

guarded_edges as (

    select * from {{ ref('int_identity__guarded_edges') }}

),

-- Everybody the sources name is a node, linked or not: a contact, and the e-mail of a login without a contact.
nodes as (

    select 'contact:' || contact_key as node
    from contacts
    union
    select node_b
    from guarded_edges
    where identifier_type = 'email'
        and rule in ('same_email', 'login')

),

final as (

    select node_a, node_b
    from guarded_edges
    where edge_role = 'link'

    union all

    select node, node
    from nodes

)

select * from final

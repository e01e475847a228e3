{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        full_refresh=false
    )
}}

with identity_map as (

    select * from {{ ref('identity_map') }}

),

guarded_edges as (

    select * from {{ ref('int_identity__guarded_edges') }}

),

known_events as (

    {{ identity_state(this, {
        'event_type': dbt.type_string(),
        'person_id': dbt.type_string(),
        'other_person_id': dbt.type_string(),
        'changed_at': dbt.type_timestamp(),
    }) | indent(4) }}

),

persons as (

    select
        person_id,
        min(recorded_at) as created_at,
        max(case when is_current then cast('9999-12-31' as {{ dbt.type_timestamp() }}) else valid_to end) as ended_at
    from identity_map
    group by person_id

),

creations as (

    select
        'created' as event_type,
        persons.person_id,
        cast(null as {{ dbt.type_string() }}) as other_person_id,
        min(identity_map.valid_from) as effective_at,
        persons.created_at as changed_at
    from persons
    inner join identity_map
        on identity_map.person_id = persons.person_id
        and identity_map.recorded_at = persons.created_at
    group by persons.person_id, persons.created_at

),

-- An identifier that left one person for another in one run.
moves as (

    select
        closed.identifier_type,
        closed.identifier,
        closed.person_id as from_person_id,
        opened.person_id as to_person_id,
        closed.valid_from as held_since,
        opened.recorded_at as changed_at
    from identity_map as closed
    inner join identity_map as opened
        on opened.identifier_type = closed.identifier_type
        and opened.identifier = closed.identifier
        and opened.valid_from = closed.valid_to
        and opened.person_id <> closed.person_id
    where not closed.is_current

),

judged_moves as (

    select
        moves.*,
        leaving.ended_at <= moves.changed_at as is_retired,
        receiving.created_at = moves.changed_at as is_new,
        row_number() over (
            partition by moves.from_person_id, moves.changed_at
            order by moves.held_since, moves.identifier_type, moves.identifier
        ) as age_rank
    from moves
    inner join persons as leaving
        on leaving.person_id = moves.from_person_id
    inner join persons as receiving
        on receiving.person_id = moves.to_person_id

),

-- A retired person lives on in one other: where its oldest identifier went.
merges as (

    select
        from_person_id,
        to_person_id,
        changed_at
    from judged_moves
    where is_retired
        and age_rank = 1

),

splits as (

    select distinct
        judged_moves.from_person_id,
        judged_moves.to_person_id,
        judged_moves.changed_at
    from judged_moves
    left join merges
        on merges.from_person_id = judged_moves.from_person_id
        and merges.to_person_id = judged_moves.to_person_id
        and merges.changed_at = judged_moves.changed_at
    where judged_moves.is_new
        and merges.from_person_id is null

),

changes as (

    select * from creations

    union all

    select 'merged', to_person_id, from_person_id, changed_at, changed_at
    from merges

    union all

    select 'split', to_person_id, from_person_id, changed_at, changed_at
    from splits

),

fresh as (

    select changes.*
    from changes
    left join known_events
        on known_events.event_type = changes.event_type
        and known_events.person_id = changes.person_id
        and coalesce(known_events.other_person_id, '') = coalesce(changes.other_person_id, '')
        -- A person begins once, even when a lost map is minted again.
        and (changes.event_type = 'created' or known_events.changed_at = changes.changed_at)
    where known_events.event_type is null

),

moved_nodes as (

    select
        fresh.person_id,
        fresh.other_person_id,
        moves.identifier_type || ':' || moves.identifier as node
    from fresh
    inner join moves
        on moves.to_person_id = fresh.person_id
        and moves.from_person_id = fresh.other_person_id
        and moves.changed_at = fresh.changed_at
    where fresh.event_type = 'merged'

),

both_ways as (

    select node_a as node, node_b as neighbour, rule, seen_at from guarded_edges
    union all
    select node_b, node_a, rule, seen_at from guarded_edges

),

-- The edges across the seam: from what moved to what did not.
seams as (

    select
        moved_nodes.person_id,
        moved_nodes.other_person_id,
        string_agg(distinct both_ways.rule, ', ' order by both_ways.rule) as rule,
        min(both_ways.seen_at) as seen_at
    from moved_nodes
    inner join both_ways
        on both_ways.node = moved_nodes.node
    left join moved_nodes as same_side
        on same_side.person_id = moved_nodes.person_id
        and same_side.other_person_id = moved_nodes.other_person_id
        and same_side.node = both_ways.neighbour
    where same_side.node is null
    group by moved_nodes.person_id, moved_nodes.other_person_id

),

final as (

    select
        fresh.event_type,
        fresh.person_id,
        fresh.other_person_id,
        case
            when fresh.event_type = 'merged' then coalesce(seams.seen_at, fresh.effective_at)
            else fresh.effective_at
        end as effective_at,
        fresh.changed_at,
        seams.rule
    from fresh
    left join seams
        on fresh.event_type = 'merged'
        and seams.person_id = fresh.person_id
        and seams.other_person_id = fresh.other_person_id

)

select * from final

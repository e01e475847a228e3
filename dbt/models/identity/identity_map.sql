{{
    config(
        materialized='incremental',
        incremental_strategy='delete+insert',
        unique_key=['identifier_type', 'identifier', 'person_id', 'valid_from'],
        full_refresh=false
    )
}}

with clusters as (

    select * from {{ ref('int_identity__clusters') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

history as (

    {{ identity_state(this, {
        'identifier_type': dbt.type_string(),
        'identifier': dbt.type_string(),
        'person_id': dbt.type_string(),
        'valid_from': dbt.type_timestamp(),
        'valid_to': dbt.type_timestamp(),
        'is_current': 'boolean',
        'recorded_at': dbt.type_timestamp(),
    }) | indent(4) }}

),

-- Too large to be one person: whoever is in there keeps the person they had, until somebody has looked.
trusted as (

    select * from clusters where not is_oversized

),

frozen as (

    select * from clusters where is_oversized

),

ranked_history as (

    select
        *,
        row_number() over (
            partition by identifier_type, identifier
            order by case when is_current then 0 else 1 end, valid_from desc, recorded_at desc, person_id
        ) as recency
    from history

),

-- The latest word on an identifier counts even when it is closed: after an outage of a source its people come back
-- as who they were.
latest as (

    select * from ranked_history where recency = 1

),

generations as (

    select
        identifier_type,
        identifier,
        count(distinct person_id) as generation
    from history
    group by identifier_type, identifier

),

claims as (

    select
        trusted.component,
        latest.person_id,
        trusted.first_seen_at,
        trusted.identifier_type,
        trusted.identifier,
        case when latest.is_current then 0 else 1 end as staleness
    from trusted
    inner join latest
        on latest.identifier_type = trusted.identifier_type
        and latest.identifier = trusted.identifier

),

-- A person goes on in one cluster only: the one with the oldest identifier that still was theirs.
heirs as (

    select
        *,
        row_number() over (
            partition by person_id
            order by staleness, first_seen_at, identifier_type, identifier
        ) as place_in_person
    from claims

),

-- A cluster that inherits several persons is a merge: the person of the oldest identifier stays.
inheritances as (

    select
        *,
        row_number() over (
            partition by component
            order by staleness, first_seen_at, identifier_type, identifier
        ) as place_in_component
    from heirs
    where place_in_person = 1

),

kept as (

    select component, person_id from inheritances where place_in_component = 1

),

founders as (

    select
        component,
        identifier_type,
        identifier,
        row_number() over (
            partition by component
            order by first_seen_at, identifier_type, identifier
        ) as age_rank
    from trusted

),

minted as (

    select
        founders.component,
        {{ identity_mint_person_id(
            'founders.identifier_type', 'founders.identifier', 'coalesce(generations.generation, 0)') }} as person_id
    from founders
    left join kept
        on kept.component = founders.component
    left join generations
        on generations.identifier_type = founders.identifier_type
        and generations.identifier = founders.identifier
    where founders.age_rank = 1
        and kept.component is null

),

persons as (

    select * from kept
    union all
    select * from minted

),

assigned as (

    select
        trusted.identifier_type,
        trusted.identifier,
        persons.person_id,
        trusted.first_seen_at
    from trusted
    inner join persons
        on persons.component = trusted.component

),

closed as (

    select
        latest.identifier_type,
        latest.identifier,
        latest.person_id,
        latest.valid_from,
        greatest(clock.as_of, latest.valid_from) as valid_to,
        false as is_current,
        latest.recorded_at
    from latest
    cross join clock
    left join assigned
        on assigned.identifier_type = latest.identifier_type
        and assigned.identifier = latest.identifier
    left join frozen
        on frozen.identifier_type = latest.identifier_type
        and frozen.identifier = latest.identifier
    where latest.is_current
        and frozen.identifier is null
        and (assigned.person_id is null or assigned.person_id <> latest.person_id)

),

opened as (

    select
        assigned.identifier_type,
        assigned.identifier,
        assigned.person_id,
        case
            when latest.identifier is null then least(assigned.first_seen_at, clock.as_of)
            else greatest(clock.as_of, latest.valid_from)
        end as valid_from,
        cast(null as {{ dbt.type_timestamp() }}) as valid_to,
        true as is_current,
        clock.as_of as recorded_at
    from assigned
    cross join clock
    left join latest
        on latest.identifier_type = assigned.identifier_type
        and latest.identifier = assigned.identifier
    where latest.identifier is null
        or not latest.is_current
        or latest.person_id <> assigned.person_id

),

final as (

    select * from closed
    union all
    select * from opened

)

select * from final

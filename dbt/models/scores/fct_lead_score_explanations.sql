-- Each occurrence is rounded before it is added: sums of decimals come out alike on any number of threads.
with signals as (

    select * from {{ ref('int_scores__signals') }}

),

rules as (

    select * from {{ ref('score_rules') }}

),

faded as (

    select
        signals.person_id,
        rules.signal,
        rules.dimension,
        rules.direction,
        rules.cap,
        signals.occurrences,
        cast(
            rules.points * signals.occurrences
            * coalesce(power(0.5, signals.age_days * 1.0 / rules.half_life_days), 1)
            as decimal(18, 6)
        ) as points
    from signals
    inner join rules on signals.signal = rules.signal

),

summed as (

    select
        person_id,
        signal,
        dimension,
        direction,
        cap,
        sum(occurrences) as occurrences,
        sum(points) as points
    from faded
    group by person_id, signal, dimension, direction, cap

),

final as (

    select
        person_id,
        signal,
        dimension,
        direction,
        cast(
            case direction when 'negative' then greatest(cap, points) else least(cap, points) end as decimal(8, 2)
        ) as points,
        cast(occurrences as integer) as occurrences
    from summed

)

select * from final

with scores as (

    select * from {{ ref('fct_lead_scores') }}

),

final as (

    select
        person_id,
        lead_score,
        score_band
    from scores
    where score_band in ('hot', 'warm')

)

select * from final

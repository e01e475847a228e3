with profiles as (

    select * from {{ ref('dim_profiles') }}

),

explanations as (

    select * from {{ ref('fct_lead_score_explanations') }}

),

scales as (

    select * from {{ ref('score_scales') }}

),

rules as (

    select * from {{ ref('score_rules') }}

),

refusals as (

    select distinct person_id from {{ ref('int_consent__standing_refusals') }}
    where purpose = 'marketing'

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

version as (

    select
        md5({{ dbt.listagg(
            "concat(signal, '|', points, '|', half_life_days, '|', cap)", "','", 'order by signal'
        ) }}) as score_version
    from rules

),

summed as (

    select
        person_id,
        sum(case when dimension = 'fit' then points else 0 end) as fit_points,
        sum(case when dimension = 'engagement' then points else 0 end) as engagement_points
    from explanations
    group by person_id

),

bounded as (

    select
        profiles.person_id,
        cast(round(least(100, greatest(0, coalesce(summed.fit_points, 0))), 0) as integer) as fit_score,
        cast(round(least(100, greatest(0, coalesce(summed.engagement_points, 0))), 0) as integer) as engagement_score
    from profiles
    left join summed on profiles.person_id = summed.person_id
    left join refusals on profiles.person_id = refusals.person_id
    where refusals.person_id is null

),

scored as (

    select
        person_id,
        fit_score,
        engagement_score,
        -- What somebody does says more than who they are.
        cast(round(0.4 * fit_score + 0.6 * engagement_score, 0) as integer) as lead_score
    from bounded

),

graded as (

    select
        scored.person_id,
        max(case
            when scales.scale = 'fit_grade' and scored.fit_score >= scales.minimum then scales.minimum
        end) as grade_minimum,
        max(case
            when scales.scale = 'score_band' and scored.lead_score >= scales.minimum then scales.minimum
        end) as band_minimum
    from scored
    cross join scales
    group by scored.person_id

),

final as (

    select
        profiles.person_id,
        scored.fit_score,
        grades.label as fit_grade,
        scored.engagement_score,
        scored.lead_score,
        bands.label as score_band,
        left(version.score_version, 8) as score_version,
        run_clock.as_of as scored_at
    from profiles
    cross join version
    cross join run_clock
    left join scored on profiles.person_id = scored.person_id
    left join graded on profiles.person_id = graded.person_id
    left join scales as grades on grades.scale = 'fit_grade' and graded.grade_minimum = grades.minimum
    left join scales as bands on bands.scale = 'score_band' and graded.band_minimum = bands.minimum

)

select * from final

with loyal as (

    select * from {{ ref('seg_loyal') }}

),

high_value as (

    select * from {{ ref('seg_high_value') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

traits as (

    select * from {{ ref('dim_profile_traits') }}

),

scores as (

    select * from {{ ref('fct_lead_scores') }}

),

final as (

    select
        profiles.person_id,
        profiles.email,
        profiles.phone,
        profiles.first_name,
        profiles.last_name,
        traits.lifecycle_stage,
        traits.rfm_segment,
        cast(scores.lead_score as integer) as lead_score,
        scores.score_band,
        cast(high_value.revenue as decimal(12, 2)) as revenue,
        traits.favourite_department,
        profiles.country
    from loyal
    inner join high_value on loyal.person_id = high_value.person_id
    inner join profiles on loyal.person_id = profiles.person_id
    inner join traits on loyal.person_id = traits.person_id
    left join scores on loyal.person_id = scores.person_id

)

select * from final

with responders as (

    select * from {{ ref('seg_coupon_responders') }}

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
        profiles.first_name,
        cast(responders.coupons_redeemed as integer) as coupons_redeemed,
        cast(responders.last_redeemed_on as date) as last_redeemed_on,
        traits.favourite_department,
        cast(scores.lead_score as integer) as lead_score
    from responders
    inner join profiles on responders.person_id = profiles.person_id
    left join traits on responders.person_id = traits.person_id
    left join scores on responders.person_id = scores.person_id

)

select * from final

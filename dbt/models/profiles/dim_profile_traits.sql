{#- Days. A household is measured against its own rhythm first: two weeks of silence mean something else for a daily
    than for a monthly shopper. The fixed bounds hold for those with too few orders to have a rhythm. -#}
{%- set new_days = var('lifecycle_new_days', 30) -%}
{%- set lapsing_days = var('lifecycle_lapsing_days', 14) -%}
{%- set lapsing_gaps = var('lifecycle_lapsing_gaps', 2) -%}
{%- set lost_days = var('lifecycle_lost_days', 45) -%}

with profiles as (

    select * from {{ ref('dim_profiles') }}

),

orders as (

    select * from {{ ref('int_profiles__household_orders') }}

),

departments as (

    select * from {{ ref('int_profiles__household_departments') }}

),

redemptions as (

    select * from {{ ref('stg_retail__coupon_redemptions') }}

),

campaign_targets as (

    select * from {{ ref('stg_retail__campaign_targets') }}

),

campaigns as (

    select * from {{ ref('stg_retail__campaigns') }}

),

demographics as (

    select * from {{ ref('stg_retail__demographics') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

redeemed as (

    select
        redemptions.household_id,
        count(*) as coupons_redeemed
    from redemptions
    cross join clock
    where redemptions.redeemed_on <= clock.as_of
    group by redemptions.household_id

),

targeted as (

    select
        campaign_targets.household_id,
        count(distinct campaign_targets.campaign_id) as campaigns_targeted
    from campaign_targets
    inner join campaigns
        on campaigns.campaign_id = campaign_targets.campaign_id
    cross join clock
    where campaigns.starts_on <= clock.as_of
    group by campaign_targets.household_id

),

favourites as (

    select household_id, department from departments where is_favourite

),

staged as (

    select
        *,
        case
            when days_since_last_order > {{ lost_days }} then 'lost'
            when days_since_last_order > greatest({{ lapsing_days }}, {{ lapsing_gaps }} * coalesce(usual_gap_days, 0))
                then 'lapsing'
            when days_since_first_order <= {{ new_days }} then 'new'
            when frequency_quintile >= 4 then 'loyal'
            else 'active'
        end as lifecycle_stage,
        case
            when recency_quintile >= 4 and frequency_quintile >= 4 and monetary_quintile >= 4 then 'champions'
            when frequency_quintile >= 4 and recency_quintile >= 3 then 'loyal'
            when frequency_quintile >= 4 or monetary_quintile >= 4 and recency_quintile <= 2 then 'at_risk'
            when monetary_quintile >= 4 then 'big_spenders'
            when recency_quintile >= 4 then 'promising'
            when recency_quintile = 3 then 'needs_attention'
            else 'hibernating'
        end as rfm_segment
    from orders

),

final as (

    select
        profiles.person_id,
        profiles.household_id,
        staged.first_order_on,
        staged.last_order_on,
        staged.days_since_last_order,
        coalesce(staged.order_count, 0) as order_count,
        coalesce(staged.revenue, cast(0 as decimal(12, 2))) as revenue,
        staged.average_basket,
        staged.recency_quintile,
        staged.frequency_quintile,
        staged.monetary_quintile,
        staged.rfm_segment,
        coalesce(staged.lifecycle_stage, 'prospect') as lifecycle_stage,
        favourites.department as favourite_department,
        cast(coalesce(redeemed.coupons_redeemed, 0) as integer) as coupons_redeemed,
        cast(coalesce(targeted.campaigns_targeted, 0) as integer) as campaigns_targeted,
        demographics.age_band,
        demographics.income_band,
        demographics.household_size,
        demographics.kids_count
    from profiles
    left join staged
        on staged.household_id = profiles.household_id
    left join favourites
        on favourites.household_id = profiles.household_id
    left join redeemed
        on redeemed.household_id = profiles.household_id
    left join targeted
        on targeted.household_id = profiles.household_id
    left join demographics
        on demographics.household_id = profiles.household_id

)

select * from final

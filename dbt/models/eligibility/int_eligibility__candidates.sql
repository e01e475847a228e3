with profiles as (

    select * from {{ ref('dim_profiles') }}

),

channel_purposes as (

    select * from {{ ref('channel_purposes') }}

),

final as (

    select
        profiles.person_id,
        channel_purposes.channel,
        channel_purposes.purpose,
        profiles.country,
        profiles.country || '-' || profiles.region as country_region,
        profiles.time_zone,
        case channel_purposes.channel
            when 'email' then profiles.email is not null
            when 'sms' then profiles.phone is not null
            when 'ads' then profiles.email is not null or profiles.phone is not null
            else false
        end as is_reachable
    from profiles
    cross join channel_purposes

)

select * from final

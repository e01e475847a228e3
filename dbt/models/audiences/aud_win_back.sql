with win_back as (

    select * from {{ ref('seg_win_back') }}

),

profiles as (

    select * from {{ ref('dim_profiles') }}

),

final as (

    select
        profiles.person_id,
        profiles.email,
        profiles.phone,
        profiles.first_name,
        profiles.last_name,
        profiles.postal_code,
        profiles.city,
        profiles.region,
        profiles.country
    from win_back
    inner join profiles on win_back.person_id = profiles.person_id

)

select * from final

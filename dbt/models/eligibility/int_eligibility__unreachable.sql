with candidates as (

    select * from {{ ref('int_eligibility__candidates') }}

),

final as (

    select
        person_id,
        channel,
        purpose,
        'unreachable' as reason
    from candidates
    where not is_reachable

)

select * from final

with refusals as (

    select * from {{ ref('int_consent__standing_refusals') }}

),

final as (

    select
        person_id,
        channel,
        purpose,
        'objection' as reason
    from refusals
    where action = 'objected'

)

select * from final

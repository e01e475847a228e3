with source as (

    select * from {{ source('raw', 'overlay_true_person') }}

),

final as (

    select
        source_system || ':' || contact_id as contact_key,
        true_person_id
    from source

)

select * from final

with contacts as (

    select * from {{ ref('stg_crm__contacts') }}

),

identity_map as (

    select * from {{ ref('identity_map') }}

),

final as (

    select
        identity_map.person_id,
        contacts.*
    from contacts
    inner join identity_map
        on identity_map.identifier_type = 'contact'
        and identity_map.identifier = contacts.contact_key
        and identity_map.is_current

)

select * from final

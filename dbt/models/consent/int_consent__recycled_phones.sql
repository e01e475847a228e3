-- Numbers are given out again: what the former holder granted says nothing about the present one.
with history as (

    select * from {{ ref('stg_crm__phone_history') }}

),

contacts as (

    select
        identifier as contact_key,
        person_id
    from {{ ref('identity_map') }}
    where identifier_type = 'contact' and is_current

),

held as (

    select
        history.phone,
        contacts.person_id,
        history.valid_from,
        history.valid_to
    from history
    inner join contacts on history.contact_key = contacts.contact_key

),

final as (

    select
        former.phone,
        max(former.valid_to) as changed_hands_at
    from held as former
    inner join held as next_holder
        on
            former.phone = next_holder.phone
            and former.person_id <> next_holder.person_id
            and former.valid_to <= next_holder.valid_from
    group by former.phone

)

select * from final

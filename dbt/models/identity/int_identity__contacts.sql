with contacts as (

    select * from {{ ref('stg_crm__contacts') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

deny_list as (

    select * from {{ ref('identity_deny_list') }} where identifier_type = 'name'

),

-- Foreign systems leave flags and times empty: a record counts unless it says that it does not.
living as (

    select
        contacts.contact_key,
        contacts.source_system,
        contacts.household_id,
        contacts.email_match_key,
        contacts.phone,
        {{ identity_name_key('contacts.first_name') }} as first_key,
        {{ identity_name_key('contacts.last_name') }} as last_key,
        coalesce(contacts.created_at, contacts.updated_at, clock.as_of) as created_at,
        coalesce(contacts.updated_at, contacts.created_at, clock.as_of) as updated_at
    from contacts
    cross join clock
    where not coalesce(contacts.is_deleted, false)
        and coalesce(contacts.created_at <= clock.as_of, true)

),

final as (

    select
        living.contact_key,
        living.source_system,
        living.household_id,
        living.email_match_key,
        living.phone,
        case when denied_first.value is null then living.first_key end as first_key,
        case when denied_last.value is null then living.last_key end as last_key,
        living.created_at,
        living.updated_at
    from living
    left join deny_list as denied_first
        on denied_first.value = living.first_key
    left join deny_list as denied_last
        on denied_last.value = living.last_key

)

select * from final

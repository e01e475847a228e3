with contacts as (

    select * from {{ ref('int_identity__contacts') }}

),

given_names as (

    select * from {{ ref('identity_given_names') }}

),

nicknames as (

    select * from {{ ref('identity_nicknames') }}

),

listed as (

    select given_name as name from given_names
    union
    select nickname from nicknames
    union
    select given_name from nicknames

),

borne as (

    select
        first_key as name,
        count(distinct last_key) as surname_count
    from contacts
    where first_key is not null
    group by first_key

),

final as (

    select
        borne.name,
        borne.surname_count,
        listed.name is not null as is_listed
    from borne
    left join listed
        on listed.name = borne.name

)

select * from final

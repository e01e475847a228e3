with contacts as (

    select * from {{ ref('int_identity__contacts') }}

),

nicknames as (

    select * from {{ ref('identity_nicknames') }}

),

listed as (

    select nickname as name from nicknames
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
        listed.name is not null
        or borne.surname_count >= {{ var('identity_established_name_surnames', 3) }} as is_established
    from borne
    left join listed
        on listed.name = borne.name

)

select * from final

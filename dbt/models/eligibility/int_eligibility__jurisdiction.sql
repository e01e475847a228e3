-- Unknown is no: without a country, or where nobody wrote down what the law asks, the person is left alone.
with candidates as (

    select * from {{ ref('int_eligibility__candidates') }}

),

rules as (

    select * from {{ ref('jurisdiction_rules') }}
    where rule = 'legal_bases'

),

final as (

    select
        candidates.person_id,
        candidates.channel,
        candidates.purpose,
        'jurisdiction' as reason
    from candidates
    left join rules
        on
            candidates.country = rules.jurisdiction
            and candidates.channel = rules.channel
            and candidates.purpose = rules.purpose
    where rules.jurisdiction is null

)

select * from final

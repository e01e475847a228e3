with candidates as (

    select * from {{ ref('int_eligibility__candidates') }}

),

consent as (

    select * from {{ ref('fct_consent_state') }}

),

rules as (

    select * from {{ ref('jurisdiction_rules') }}
    where rule = 'legal_bases'

),

traits as (

    select * from {{ ref('dim_profile_traits') }}

),

judged as (

    select
        candidates.person_id,
        candidates.channel,
        candidates.purpose,
        case
            when not coalesce(consent.has_consent, false) then coalesce(consent.state, 'missing')
            -- Commas on both sides: `consent` must not be found inside `implied_consent`.
            when coalesce(',' || rules.value || ',' not like '%,' || consent.legal_basis || ',%', true)
                then 'basis_not_allowed'
            -- PECR regulation 22: only for one's own customers.
            when consent.legal_basis = 'soft_opt_in' and coalesce(traits.order_count, 0) = 0
                then 'soft_opt_in_without_order'
        end as detail
    from candidates
    left join consent
        on
            candidates.person_id = consent.person_id
            and candidates.channel = consent.channel
            and candidates.purpose = consent.purpose
    left join rules
        on
            candidates.country = rules.jurisdiction
            and candidates.channel = rules.channel
            and candidates.purpose = rules.purpose
    left join traits on candidates.person_id = traits.person_id

),

final as (

    select
        person_id,
        channel,
        purpose,
        'consent' as reason,
        detail
    from judged
    where detail is not null

)

select * from final

with pairs as (

    select * from {{ ref('int_identity__contact_pairs') }}

),

directed as (

    select identifier_type, identifier, contact_a as contact, contact_b as other, verdict, is_kept_apart
    from pairs
    union all
    select identifier_type, identifier, contact_b, contact_a, verdict, is_kept_apart
    from pairs

),

-- A contact that matches two others which cannot be one person matches neither for certain: "Alex" between Alexander
-- and Alexandra, or one record of a name that father and son share.
final as (

    select distinct
        match.identifier_type,
        match.identifier,
        least(match.contact, match.other) as contact_a,
        greatest(match.contact, match.other) as contact_b
    from directed as match
    inner join directed as second_match
        on second_match.identifier_type = match.identifier_type
        and second_match.identifier = match.identifier
        and second_match.contact = match.contact
        and second_match.other <> match.other
        and second_match.verdict = 'match'
    inner join directed as between_matches
        on between_matches.identifier_type = match.identifier_type
        and between_matches.identifier = match.identifier
        and between_matches.contact = match.other
        and between_matches.other = second_match.other
        and (between_matches.verdict = 'conflict' or between_matches.is_kept_apart)
    where match.verdict = 'match'

)

select * from final

with identifiers as (

    select * from {{ ref('int_identity__identifiers') }}

),

deny_list as (

    select * from {{ ref('identity_deny_list') }}

),

caps as (

    select * from {{ ref('identity_fan_out_caps') }}

),

crm_records as (

    select * from {{ ref('stg_crm__contacts') }}

),

denied as (

    select
        identifiers.identifier_type,
        identifiers.identifier,
        deny_list.reason,
        count(distinct identifiers.record_id) as record_count
    from identifiers
    inner join deny_list
        on deny_list.identifier_type = identifiers.identifier_type
        and deny_list.value = case deny_list.part
            when 'whole' then identifiers.identifier
            when 'local_part' then {{ dbt.split_part('identifiers.identifier', "'@'", 1) }}
            when 'domain' then {{ dbt.split_part('identifiers.identifier', "'@'", 2) }}
        end
    group by identifiers.identifier_type, identifiers.identifier, deny_list.reason

),

over_cap as (

    select
        identifiers.identifier_type,
        identifiers.identifier,
        'fan_out' as reason,
        count(distinct identifiers.record_id) as record_count
    from identifiers
    inner join caps
        on caps.identifier_type = identifiers.identifier_type
        and caps.record_type = identifiers.record_type
    where identifiers.is_current
    group by identifiers.identifier_type, identifiers.identifier, caps.record_type, caps.max_records
    having count(distinct identifiers.record_id) > caps.max_records

),

-- Someone deleted in the CRM must not come back through a login of theirs.
deleted as (

    select
        'email' as identifier_type,
        email_match_key as identifier,
        'deleted_record' as reason,
        count(*) as record_count
    from crm_records
    where email_match_key is not null
    group by email_match_key
    having min(case when is_deleted then 1 else 0 end) = 1

),

refused as (

    select * from denied
    union all
    select * from over_cap
    union all
    select * from deleted

),

-- A denied value stays denied however many records share it, so its own reason is the one to report.
final as (

    select
        identifier_type,
        identifier,
        coalesce(min(case when reason <> 'fan_out' then reason end), 'fan_out') as reason,
        max(record_count) as record_count
    from refused
    group by identifier_type, identifier

)

select * from final

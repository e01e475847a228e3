{{ config(materialized='table', schema='staging') }}

{#- A table, so that every model of one build reads the same moment. -#}
with clock as (

    select max(as_of) as as_of from {{ source('raw', 'clock') }}

),

final as (

    select
        coalesce(
            cast(nullif('{{ var("as_of") or "" }}', '') as timestamp),
            clock.as_of,
            cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S") }}' as timestamp)
        ) as as_of
    from clock

)

select * from final

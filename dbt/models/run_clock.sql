{{ config(materialized='table', schema='staging') }}

{#- A table, so that every model of one build reads the same moment. -#}
with clock as (

    select as_of from {{ source('raw', 'clock') }}

),

final as (

    select
        {%- if var('as_of') is not none %}
        cast('{{ var("as_of") }}' as timestamp) as as_of
        {%- else %}
        coalesce(
            (select max(as_of) from clock),
            cast('{{ run_started_at.strftime("%Y-%m-%d %H:%M:%S") }}' as timestamp)
        ) as as_of
        {%- endif %}

)

select * from final

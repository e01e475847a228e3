{#- A number from 0 to 9999 that depends on the parts only. md5 rather than a warehouse's own hash(), which may change
    with the next version and would then move people between the arms of a running experiment. -#}
{% macro holdout_bucket(salt, holdout, person_id) -%}
    {%- set text = salt ~ " || '|' || " ~ holdout ~ " || '|' || " ~ person_id -%}
    {{ return(adapter.dispatch('holdout_bucket')(text)) }}
{%- endmacro %}

{% macro default__holdout_bucket(text) -%}
    cast(cast(('x' || left(md5({{ text }}), 8)) as bit(32)) as bigint) % 10000
{%- endmacro %}

{% macro duckdb__holdout_bucket(text) -%}
    cast('0x' || left(md5({{ text }}), 8) as bigint) % 10000
{%- endmacro %}

{#- An empty text is no value: '' would join with every other ''. -#}
{% macro normalise_text(value) -%}
    nullif(trim({{ value }}), '')
{%- endmacro %}

{% macro normalise_country(value) -%}
    upper({{ normalise_text(value) }})
{%- endmacro %}


{#- Patterns are written without backslashes ([.] for a dot), since warehouses disagree on escapes. -#}
{% macro matches_pattern(value, pattern) -%}
    {{ adapter.dispatch('matches_pattern')(value, pattern) }}
{%- endmacro %}

{% macro default__matches_pattern(value, pattern) -%}
    regexp_like({{ value }}, '{{ pattern }}')
{%- endmacro %}

{#- DuckDB's ~ asks for the whole text; regexp_matches looks inside, as everywhere else. -#}
{% macro duckdb__matches_pattern(value, pattern) -%}
    regexp_matches({{ value }}, '{{ pattern }}')
{%- endmacro %}

{% macro postgres__matches_pattern(value, pattern) -%}
    {{ value }} ~ '{{ pattern }}'
{%- endmacro %}


{% macro digits_only(value) -%}
    {{ adapter.dispatch('digits_only')(value) }}
{%- endmacro %}

{% macro default__digits_only(value) -%}
    regexp_replace({{ value }}, '[^0-9]', '')
{%- endmacro %}

{#- Without the flag, DuckDB and Postgres replace the first match only. -#}
{% macro duckdb__digits_only(value) -%}
    regexp_replace({{ value }}, '[^0-9]', '', 'g')
{%- endmacro %}

{% macro postgres__digits_only(value) -%}
    regexp_replace({{ value }}, '[^0-9]', '', 'g')
{%- endmacro %}

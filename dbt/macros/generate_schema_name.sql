{#- A layer's schema is the layer's name, without the target's schema in front: the engine, Dagster and people
    all read `audiences.aud_x`. Give every developer a database (file) of their own instead of a prefix. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}

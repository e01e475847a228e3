{#- One identifier of a stated type, in the form in which profiles carry it. -#}
{% macro normalise_identifier(identifier_type, identifier, country) -%}
    case
        when {{ identifier_type }} = 'email' then {{ normalise_email(identifier) }}
        when {{ identifier_type }} = 'phone' then {{ normalise_phone(identifier, country) }}
        else {{ normalise_text(identifier) }}
    end
{%- endmacro %}

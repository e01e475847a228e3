{#- Countries whose national numbers start with a 0 that disappears abroad, and their calling codes.
    Numbers of other countries are read when they are written with + or 00. -#}
{% macro phone_calling_codes() %}
    {{ return({
        'AT': '43', 'AU': '61', 'BE': '32', 'CH': '41', 'DE': '49', 'FR': '33', 'GB': '44', 'IE': '353',
        'NL': '31', 'NZ': '64', 'SE': '46',
    }) }}
{% endmacro %}


{#- The number in E.164 (+14155550123) or null. `country` is an ISO 3166 code in capitals, an expression. -#}
{% macro normalise_phone(phone, country) -%}
    {{ valid_phone(international_digits(phone, country)) }}
{%- endmacro %}


{#- Digits with the calling code in front, or null when the country is not known. An extension (x12) is cut
    off, and so is the (0) that some write between code and number. -#}
{% macro international_digits(phone, country) -%}
    {%- set written = "split_part(replace(lower(trim(" ~ phone ~ ")), '(0)', ''), 'x', 1)" -%}
    {%- set digits = digits_only(written) -%}
    case
        when {{ written }} like '+%' then {{ digits }}
        when {{ country }} in ('US', 'CA') and length({{ digits }}) = 10 then '1' || {{ digits }}
        when {{ country }} in ('US', 'CA') and length({{ digits }}) = 11 then {{ digits }}
        when {{ digits }} like '00%' then substr({{ digits }}, 3)
        {% for code, calling_code in phone_calling_codes().items() %}
        when {{ country }} = '{{ code }}' and {{ digits }} like '0%'
            then '{{ calling_code }}' || substr({{ digits }}, 2)
        {% endfor %}
    end
{%- endmacro %}


{#- Refuses what no network assigns, which is where placeholders live: 000-000, 999-999-9999, 555-555-5555,
    123-456-7890 (North American area codes and exchanges start at 2, and no area code has a 9 in its middle). -#}
{% macro valid_phone(digits) -%}
    {%- set national = "substr(" ~ digits ~ ", 2)" -%}
    case
        when {{ digits }} like '1%' then
            case
                when {{ matches_pattern(national, '^[2-9][0-8][0-9][2-9][0-9]{6}$') }}
                    and replace({{ national }}, substr({{ national }}, 1, 1), '') <> ''
                then '+' || {{ digits }}
            end
        when {{ matches_pattern(digits, '^[2-9][0-9]{7,14}$') }}
            and replace({{ digits }}, substr({{ digits }}, 3, 1), '') <> ''
            then '+' || {{ digits }}
    end
{%- endmacro %}

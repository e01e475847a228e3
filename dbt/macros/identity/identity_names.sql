{#- A name as it is compared: letters only, lower case, without the accents of Latin alphabets. -#}
{% macro identity_name_key(column) -%}
    nullif(
        {{ identity_letters_only(
            "translate(lower(trim(" ~ column ~ ")), 'àáâãäåāçćčèéêëēěìíîïīñńňòóôõöøōřŕśšťùúûüūůýÿžźż',"
            ~ " 'aaaaaaaccceeeeeeiiiiinnnooooooorrsstuuuuuuyyzzz')") }},
        ''
    )
{%- endmacro %}


{#- Keeps the hyphen: the halves of a double-barrelled surname are compared one by one. -#}
{% macro identity_letters_only(expression) -%}
    regexp_replace({{ expression }}, '[^a-z-]', '', 'g')
{%- endmacro %}


{#- Edits (insert, delete, replace, swap of neighbours) that turn one text into the other. -#}
{% macro identity_edit_distance(left, right) -%}
    {{ return(adapter.dispatch('identity_edit_distance')(left, right)) }}
{%- endmacro %}

{#- Postgres: needs the extension fuzzystrmatch, and counts a swap as two edits. -#}
{% macro default__identity_edit_distance(left, right) -%}
    levenshtein({{ left }}, {{ right }})
{%- endmacro %}

{% macro duckdb__identity_edit_distance(left, right) -%}
    damerau_levenshtein({{ left }}, {{ right }})
{%- endmacro %}


{#- One slip of the pen apart. Short names are left out: of three letters one is a third of the name. -#}
{% macro identity_is_near(left, right) -%}
    (least(length({{ left }}), length({{ right }})) >= 4 and {{ identity_edit_distance(left, right) }} = 1)
{%- endmacro %}


{#- Maria and Mario are one letter apart as well. Of two such names one is a misspelling only if it is not a name that
    people bear: not listed, and either hardly seen or far rarer than the other. Takes rows of int_identity__given_names. -#}
{% macro identity_is_misspelling(one, other) -%}
    (
        not ({{ one }}.is_listed and {{ other }}.is_listed)
        and (
            least({{ one }}.surname_count, {{ other }}.surname_count) < 3
            or least({{ one }}.surname_count, {{ other }}.surname_count) * 10
            <= greatest({{ one }}.surname_count, {{ other }}.surname_count)
        )
    )
{%- endmacro %}

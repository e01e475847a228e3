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


{#- Whether one edit (insert, delete, replace, swap of neighbours) turns one text into the other. -#}
{% macro identity_is_one_edit(left, right) -%}
    {{ return(adapter.dispatch('identity_is_one_edit')(left, right)) }}
{%- endmacro %}

{#- Without swaps: what most warehouses have. -#}
{% macro default__identity_is_one_edit(left, right) -%}
    levenshtein({{ left }}, {{ right }}) = 1
{%- endmacro %}

{% macro duckdb__identity_is_one_edit(left, right) -%}
    damerau_levenshtein({{ left }}, {{ right }}) = 1
{%- endmacro %}

{#- Written out: levenshtein() is an extension that may be missing, and counts a swap as two edits. -#}
{% macro postgres__identity_is_one_edit(left, right) -%}
    {{ left }} <> {{ right }} and exists (
        select 1
        from generate_series(1, greatest(length({{ left }}), length({{ right }}))) as edits (at_)
        where left({{ left }}, at_ - 1) = left({{ right }}, at_ - 1)
            and (
                substr({{ left }}, at_ + 1) = substr({{ right }}, at_ + 1)
                or substr({{ left }}, at_ + 1) = substr({{ right }}, at_)
                or substr({{ left }}, at_) = substr({{ right }}, at_ + 1)
                or (
                    substr({{ left }}, at_, 1) = substr({{ right }}, at_ + 1, 1)
                    and substr({{ left }}, at_ + 1, 1) = substr({{ right }}, at_, 1)
                    and substr({{ left }}, at_ + 2) = substr({{ right }}, at_ + 2)
                )
            )
    )
{%- endmacro %}


{#- One slip of the pen apart. Short names are left out: of three letters one is a third of the name. -#}
{% macro identity_is_near(left, right) -%}
    (least(length({{ left }}), length({{ right }})) >= 4 and {{ identity_is_one_edit(left, right) }})
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

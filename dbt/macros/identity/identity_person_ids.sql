{#- The id a new person gets: a keyed hash of the oldest identifier, so that a lost map can be minted again alike.
    `generation` counts the persons the identifier has belonged to before: no id is ever minted twice.
    The salt keeps ids from being recomputed out of guessed addresses. Set it before the first run, never after. -#}
{% macro identity_mint_person_id(identifier_type, identifier, generation) -%}
    {{ dbt.hash(
        "'" ~ var('identity_salt', 'activations') ~ "' || '|' || " ~ identifier_type ~ " || '|' || " ~ identifier
        ~ " || '|' || cast(" ~ generation ~ " as " ~ dbt.type_string() ~ ")") }}
{%- endmacro %}


{#- What earlier runs decided; no rows on the very first run. -#}
{% macro identity_state(relation, columns) -%}
    select {{ columns.keys() | join(', ') }}
    from
    {%- if is_incremental() %} {{ relation }}
    {%- else %} (
        select {% for name, type in columns.items() -%}
            cast(null as {{ type }}) as {{ name }}{{ ', ' if not loop.last }}
        {%- endfor %}
    ) as nothing_yet
    where 1 = 0
    {%- endif %}
{%- endmacro %}


{#- The identifier inside a node of the graph, which reads 'type:identifier'. -#}
{% macro identity_node_identifier(node) -%}
    substring({{ node }}, strpos({{ node }}, ':') + 1)
{%- endmacro %}

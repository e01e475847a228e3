{#-
    Materialises the connected components of a graph: the model's SQL selects edges (node_a, node_b), a node without
    edges as (node, node); the table it leaves is (node, component), the component being named by its smallest node.

    The closure is found by edge contraction: every node hooks onto its smallest neighbour, the hooks are followed to
    their roots, and only edges between different roots go into the next round. Unlike spreading labels along the
    edges, its number of rounds does not grow with the length of a chain, and no node has to meet all others.
-#}
{% materialization connected_components, default %}
    {%- set target_relation = this.incorporate(type='table') -%}
    {%- set existing_relation = load_cached_relation(this) -%}
    {%- set built_relation = make_intermediate_relation(target_relation) -%}

    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}

    {%- set labels = identity_contract_edges(target_relation, compiled_code or sql) -%}
    {% do drop_relation_if_exists(load_cached_relation(built_relation)) %}
    {% call statement('main') -%}
        {{ create_table_as(False, built_relation, 'select node, component from ' ~ labels) }}
    {%- endcall %}
    {% do adapter.drop_relation(labels) %}
    {% do drop_relation_if_exists(existing_relation) %}
    {% do adapter.rename_relation(built_relation, target_relation) %}

    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do persist_docs(target_relation, model) %}
    {{ adapter.commit() }}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target_relation]}) }}
{% endmaterialization %}


{#- Contracts until no edge is left and returns the table of labels. Work tables alternate between two names each. -#}
{% macro identity_contract_edges(target_relation, edges_sql) %}
    {%- set limit = var('identity_max_contraction_rounds', 50) -%}
    {%- set given = identity_work_table(target_relation, 'given') -%}
    {% do identity_replace_table(given, edges_sql) %}
    {% do identity_replace_table(identity_work_table(target_relation, 'labels_0'),
        'select node_a as node, node_a as component from ' ~ given ~ ' union select node_b, node_b from ' ~ given) %}
    {% do identity_replace_table(identity_work_table(target_relation, 'edges_0'),
        'select distinct least(node_a, node_b) as node_a, greatest(node_a, node_b) as node_b from ' ~ given
        ~ ' where node_a <> node_b') %}
    {% do adapter.drop_relation(given) %}

    {%- set edges = identity_work_table(target_relation, 'edges_0') -%}
    {%- set progress = namespace(rounds=0, edges=edges, left=identity_count('select 1 from ' ~ edges)) -%}
    {% for round in range(limit) if execute %}
        {%- if progress.left > 0 -%}
            {% do identity_contract_once(target_relation, round % 2, (round + 1) % 2) %}
            {%- set progress.rounds = round + 1 -%}
            {%- set progress.edges = identity_work_table(target_relation, 'edges_' ~ progress.rounds % 2) -%}
            {%- set progress.left = identity_count('select 1 from ' ~ progress.edges) -%}
        {%- endif -%}
    {% endfor %}
    {%- if progress.left > 0 -%}
        {% do exceptions.raise_compiler_error(
            model.name ~ ': ' ~ progress.left ~ ' edges are left after ' ~ limit ~ ' rounds of contraction. Ordinary '
            ~ 'graphs need about ten: look for a cluster of unusual size, or raise var '
            ~ 'identity_max_contraction_rounds.') %}
    {%- endif -%}
    {% do adapter.drop_relation(progress.edges) %}
    {{ log(model.name ~ ': converged after ' ~ progress.rounds ~ ' rounds') }}
    {{ return(identity_work_table(target_relation, 'labels_' ~ progress.rounds % 2)) }}
{% endmacro %}


{#- One round: hook every node of a live edge to its root, carry all labels along, keep the edges between roots. -#}
{% macro identity_contract_once(target_relation, old, new) %}
    {%- set edges = identity_work_table(target_relation, 'edges_' ~ old) -%}
    {%- set labels = identity_work_table(target_relation, 'labels_' ~ old) -%}
    {%- set roots = identity_roots(target_relation, edges) -%}
    {% do identity_replace_table(identity_work_table(target_relation, 'labels_' ~ new),
        'select l.node, coalesce(r.root, l.component) as component from ' ~ labels ~ ' as l left join ' ~ roots
        ~ ' as r on r.node = l.component') %}
    {% do identity_replace_table(identity_work_table(target_relation, 'edges_' ~ new),
        'select distinct least(a.root, b.root) as node_a, greatest(a.root, b.root) as node_b from ' ~ edges
        ~ ' as e inner join ' ~ roots ~ ' as a on a.node = e.node_a inner join ' ~ roots
        ~ ' as b on b.node = e.node_b where a.root <> b.root') %}
    {% for relation in [edges, labels, roots] %}{% do adapter.drop_relation(relation) %}{% endfor %}
{% endmacro %}


{#- Hooks every node to its smallest neighbour, then jumps from root to root's root until nothing moves. Each jump
    halves the longest path, so 64 of them would do for more nodes than any table holds. -#}
{% macro identity_roots(target_relation, edges) %}
    {% do identity_replace_table(identity_work_table(target_relation, 'roots_0'),
        'select node, least(node, min(neighbour)) as root from ('
        ~ 'select node_a as node, node_b as neighbour from ' ~ edges
        ~ ' union all select node_b, node_a from ' ~ edges ~ ') as both_ways group by node') %}
    {%- set progress = namespace(is_moving=true, jumps=0) -%}
    {% for jump in range(64) if execute %}
        {%- if progress.is_moving -%}
            {%- set old = identity_work_table(target_relation, 'roots_' ~ jump % 2) -%}
            {%- set new = identity_work_table(target_relation, 'roots_' ~ (jump + 1) % 2) -%}
            {% do identity_replace_table(new,
                'select r.node, p.root from ' ~ old ~ ' as r inner join ' ~ old ~ ' as p on p.node = r.root') %}
            {%- set progress.is_moving = identity_count('select 1 from ' ~ old ~ ' as o inner join ' ~ new
                ~ ' as n on n.node = o.node where n.root <> o.root') > 0 -%}
            {%- set progress.jumps = jump + 1 -%}
            {% do adapter.drop_relation(old) %}
        {%- endif -%}
    {% endfor %}
    {{ return(identity_work_table(target_relation, 'roots_' ~ progress.jumps % 2)) }}
{% endmacro %}


{% macro identity_work_table(target_relation, purpose) %}
    {{ return(api.Relation.create(
        database=target_relation.database, schema=target_relation.schema,
        identifier=target_relation.identifier ~ '__' ~ purpose, type='table')) }}
{% endmacro %}


{% macro identity_replace_table(relation, sql) %}
    {% do adapter.drop_relation(relation) %}
    {% call statement('identity_replace_table') -%}
        {{ create_table_as(False, relation, sql) }}
    {%- endcall %}
{% endmacro %}


{% macro identity_count(sql) %}
    {%- set rows = run_query('select count(*) from (' ~ sql ~ ') as counted') -%}
    {{ return(rows.columns[0].values()[0] | int if execute else 0) }}
{% endmacro %}

{{ config(group='activation') }}

-- Raise var identity_max_cluster_size only after reading the cluster in int_identity__quarantine: a cluster of this
-- size is nearly always one shared identifier. Until it is resolved its members keep the person they had.
select
    component,
    max(linked_count) as linked_count
from {{ ref('int_identity__clusters') }}
where is_oversized
group by component

{#- Nobody falls through: every profile has a row for every channel and purpose a sync can be for. -#}
{% test covers_every_profile(model) %}

select
    profiles.person_id,
    channel_purposes.channel,
    channel_purposes.purpose
from {{ ref('dim_profiles') }} as profiles
cross join {{ ref('channel_purposes') }} as channel_purposes
left join {{ model }} as covered
    on
        profiles.person_id = covered.person_id
        and channel_purposes.channel = covered.channel
        and channel_purposes.purpose = covered.purpose
where covered.person_id is null

{% endtest %}

{#- The address as it may be sent to: trimmed, lower case, null when it is no address.
    Dots and tags stay: to the provider that owns the mailbox they may mean something. -#}
{% macro normalise_email(value) -%}
    case
        when {{ matches_pattern(
            'lower(trim(' ~ value ~ '))',
            "^[a-z0-9_%&''+-]+([.][a-z0-9_%&''+-]+)*@([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]{2,}$"
        ) }}
            and length(trim({{ value }})) <= 254
        then lower(trim({{ value }}))
    end
{%- endmacro %}


{#- The address as it may be compared, never sent to. Takes a normalised address: +tags go everywhere, dots
    only where the provider is known to ignore them. -#}
{% macro normalise_email_match_key(email) -%}
    {%- set local = "split_part(split_part(" ~ email ~ ", '@', 1), '+', 1)" -%}
    {%- set domain = "split_part(" ~ email ~ ", '@', 2)" -%}
    case
        when {{ email }} is null then null
        when {{ local }} = '' then {{ email }}
        when {{ domain }} in ('gmail.com', 'googlemail.com') then replace({{ local }}, '.', '') || '@gmail.com'
        else {{ local }} || '@' || {{ domain }}
    end
{%- endmacro %}

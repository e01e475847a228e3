{#- The zones the warehouse can convert to; a name it does not know would stop the build. -#}
{% macro known_time_zones() -%}
    {{ return(adapter.dispatch('known_time_zones')()) }}
{%- endmacro %}

{% macro default__known_time_zones() -%}
    (select name as time_zone from pg_timezone_names) as known_time_zones
{%- endmacro %}

{% macro duckdb__known_time_zones() -%}
    (select distinct name as time_zone from pg_timezone_names()) as known_time_zones
{%- endmacro %}

{#- Hour and minute ('08:00') on the clock of a time zone, of a timestamp without zone that holds UTC. -#}
{% macro clock_time(timestamp_utc, time_zone) -%}
    {{ return(adapter.dispatch('clock_time')(timestamp_utc, time_zone)) }}
{%- endmacro %}

{% macro default__clock_time(timestamp_utc, time_zone) -%}
    to_char(({{ timestamp_utc }} at time zone 'UTC') at time zone {{ time_zone }}, 'HH24:MI')
{%- endmacro %}

{% macro duckdb__clock_time(timestamp_utc, time_zone) -%}
    strftime(({{ timestamp_utc }} at time zone 'UTC') at time zone {{ time_zone }}, '%H:%M')
{%- endmacro %}

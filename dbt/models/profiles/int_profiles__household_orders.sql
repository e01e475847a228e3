with baskets as (

    select * from {{ ref('int_profiles__baskets') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

summed as (

    select
        household_id,
        cast(min(ordered_at) as date) as first_order_on,
        cast(max(ordered_at) as date) as last_order_on,
        count(*) as order_count,
        sum(revenue) as revenue
    from baskets
    group by household_id

),

aged as (

    select
        summed.*,
        {{ dbt.datediff('summed.last_order_on', 'clock.as_of', 'day') }} as days_since_last_order,
        {{ dbt.datediff('summed.first_order_on', 'clock.as_of', 'day') }} as days_since_first_order,
        {{ dbt.datediff('summed.first_order_on', 'summed.last_order_on', 'day') }} as active_days
    from summed
    cross join clock

),

-- Equal values share a quintile: ntile would draw the line between two households that bought on the same day.
ranked as (

    select
        *,
        rank() over (order by days_since_last_order desc) - 1 as recency_rank,
        rank() over (order by order_count) - 1 as frequency_rank,
        rank() over (order by revenue) - 1 as monetary_rank,
        count(*) over () as household_count
    from aged

),

final as (

    select
        household_id,
        first_order_on,
        last_order_on,
        days_since_last_order,
        days_since_first_order,
        cast(order_count as integer) as order_count,
        cast(revenue as decimal(12, 2)) as revenue,
        -- round(revenue / order_count, 2), exactly: where a quotient is a double, half a cent goes either way.
        cast(floor((200 * revenue + order_count) / (2 * order_count)) / 100 as decimal(12, 2)) as average_basket,
        case
            when order_count > 1 then cast(cast(active_days as decimal(12, 2)) / (order_count - 1) as decimal(12, 4))
        end as usual_gap_days,
        {%- for measure in ['recency', 'frequency', 'monetary'] %}
        cast(1 + floor({{ measure }}_rank * 5.0 / household_count) as integer) as {{ measure }}_quintile
        {{- ',' if not loop.last }}
        {%- endfor %}
    from ranked

)

select * from final

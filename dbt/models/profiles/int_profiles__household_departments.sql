with transactions as (

    select * from {{ ref('stg_retail__transactions') }}

),

products as (

    select * from {{ ref('stg_retail__products') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

spent as (

    select
        transactions.household_id,
        products.department,
        sum(transactions.sales_value) as revenue
    from transactions
    cross join clock
    inner join products
        on products.product_id = transactions.product_id
    where transactions.ordered_at <= clock.as_of
        and products.department is not null
    group by transactions.household_id, products.department

),

shares as (

    select
        household_id,
        department,
        revenue,
        cast(
            revenue / sum(revenue) over (partition by household_id)
            - sum(revenue) over (partition by department) / sum(revenue) over () as decimal(9, 6)
        ) as share_above_average
    from spent
    where revenue > 0

),

-- By revenue alone nearly everybody's favourite is the grocery department, which tells a marketer nothing.
ranked as (

    select
        *,
        row_number() over (
            partition by household_id
            order by share_above_average desc, revenue desc, department
        ) as place
    from shares

),

final as (

    select
        household_id,
        department,
        revenue,
        share_above_average,
        place = 1 as is_favourite
    from ranked

)

select * from final

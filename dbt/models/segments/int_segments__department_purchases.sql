with transactions as (

    select * from {{ ref('stg_retail__transactions') }}

),

products as (

    select * from {{ ref('stg_retail__products') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

final as (

    select
        transactions.household_id,
        products.department,
        count(distinct transactions.basket_id) as basket_count,
        cast(max(transactions.ordered_at) as date) as last_bought_on
    from transactions
    cross join run_clock
    inner join products on transactions.product_id = products.product_id
    where
        transactions.ordered_at <= run_clock.as_of
        and transactions.ordered_at > {{ dbt.dateadd('day', -90, 'run_clock.as_of') }}
    group by transactions.household_id, products.department

)

select * from final

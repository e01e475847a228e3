with transactions as (

    select * from {{ ref('stg_retail__transactions') }}

),

clock as (

    select * from {{ ref('run_clock') }}

),

final as (

    select
        transactions.basket_id,
        transactions.household_id,
        min(transactions.ordered_at) as ordered_at,
        sum(transactions.sales_value) as revenue
    from transactions
    cross join clock
    where transactions.ordered_at <= clock.as_of
    group by transactions.basket_id, transactions.household_id

)

select * from final

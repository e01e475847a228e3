with sessions as (

    select * from {{ ref('fct_web_sessions') }}
    where person_id is not null and not is_quarantined

),

final as (

    select person_id, 'product_viewed' as signal, started_at as occurred_at, product_views as occurrences
    from sessions
    where product_views > 0
    union all
    select person_id, 'cart_filled' as signal, started_at as occurred_at, 1 as occurrences
    from sessions
    where cart_adds > 0
    union all
    select person_id, 'checkout_started' as signal, started_at as occurred_at, 1 as occurrences
    from sessions
    where has_checkout

)

select * from final

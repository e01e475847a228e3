-- A rolling window that ends now. Sends dated after the run's logical time count too: better one message too few.
with candidates as (

    select * from {{ ref('int_eligibility__candidates') }}

),

messages as (

    select * from {{ ref('int_eligibility__messages_sent') }}

),

caps as (

    select * from {{ ref('frequency_caps') }}

),

run_clock as (

    select as_of from {{ ref('run_clock') }}

),

counted as (

    select
        messages.person_id,
        caps.channel,
        caps.counted_channel,
        caps.max_messages,
        count(*) as messages_sent
    from messages
    inner join caps on caps.counted_channel in ('all', messages.channel)
    cross join run_clock
    where messages.sent_at > {{ dbt.dateadd('day', '-caps.window_days', 'run_clock.as_of') }}
    group by messages.person_id, caps.channel, caps.counted_channel, caps.max_messages

),

capped as (

    select distinct
        person_id,
        channel
    from counted
    where messages_sent >= max_messages

),

final as (

    select
        candidates.person_id,
        candidates.channel,
        candidates.purpose,
        'frequency_cap' as reason,
        true as is_deferral
    from candidates
    inner join capped on candidates.person_id = capped.person_id and candidates.channel = capped.channel

)

select * from final

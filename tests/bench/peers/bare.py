"""Everybody's metrics, scores and segments as one would write them for DuckDB by hand, without definitions: ten
cells, five segments of the life cycle, for the configuration that Tern ships."""

from __future__ import annotations

_DAY = 86_400_000_000

_METRICS = """
with still as (
    select order_key, sum(amount_base_minor) as later from refunds where refunded_at > {now} group by order_key
),
seen as (
    select customer_id, ordered_at, shop, line_count, status, total_base_minor as total,
        total_base_minor - refunded_base_minor + coalesce(later, 0) as spend,
        (status = 'paid' or (status = 'refunded' and later is not null)) and total_minor > 0 as counts
    from orders left join still using (order_key)
    where customer_id is not null and ordered_at <= {now}
),
booked as (
    select *, case when counts then spend when status = 'returned' then total else 0 end as booked from seen
),
bought as (
    select customer_id,
        min(ordered_at) filter (counts) as first_order_at,
        max(ordered_at) filter (counts) as last_order_at,
        count(*) filter (counts) as frequency,
        count(distinct ordered_at // {day}) filter (counts) as order_days,
        (sum(line_count) filter (counts))::bigint as order_lines,
        (sum(total) filter (counts or status = 'refunded'))::bigint as gross_minor,
        sum(booked)::bigint as monetary_minor,
        count(*) filter (counts and ordered_at > {year_ago}) as orders_12m,
        sum(case when ordered_at > {year_ago} then booked else 0 end)::bigint as spend_12m_minor
    from booked group by customer_id having frequency > 0
),
newest as (
    select customer_id,
        max(shop) filter (ordered_at = last_order_at) as last_shop,
        max(ordered_at) filter (ordered_at < last_order_at) as previous_order_at
    from seen join bought using (customer_id) where counts group by customer_id
),
messaged as (
    select customer_id, max(sent_at) as last_messaged_at from messages
    where state in ('accepted', 'unknown') and sent_at <= {now} group by customer_id
),
judged as (
    select event_id, arg_max(class, rules_version) as class from event_classes group by event_id
),
engaged as (
    select customer_id, max(occurred_at) filter (kind = 'opened') as last_opened_at,
        max(occurred_at) filter (kind = 'clicked') as last_clicked_at
    from message_events join messages using (message_id) join judged using (event_id)
    where class = 'person' and occurred_at <= {now} group by customer_id
),
metrics as (
    select *, gross_minor - monetary_minor as refunded_minor
    from bought join newest using (customer_id)
    left join messaged using (customer_id) left join engaged using (customer_id)
)"""

_PUBLISHED = """
with still as (
    select order_key, sum(amount_base_minor) as later from refunds where refunded_at > {now} group by order_key
),
booked as (
    select customer_id, ordered_at,
        (status = 'paid' or (status = 'refunded' and later is not null)) and total_minor > 0 as counts,
        case when counts then total_base_minor - refunded_base_minor + coalesce(later, 0)
            when status = 'returned' then total_base_minor else 0 end as booked
    from orders left join still using (order_key)
    where customer_id is not null and ordered_at <= {now}
),
metrics as (
    select customer_id,
        min(ordered_at) filter (counts) as first_order_at,
        max(ordered_at) filter (counts) as last_order_at,
        count(*) filter (counts) as frequency,
        sum(booked)::bigint as monetary_minor,
        count(*) filter (counts and ordered_at > {year_ago}) as orders_12m,
        sum(case when ordered_at > {year_ago} then booked else 0 end)::bigint as spend_12m_minor
    from booked group by customer_id having frequency > 0
)"""

_SEGMENTS = """,
valued as (select *, -(({now} - last_order_at) // {day}) as freshness from metrics),
cuts as (
    select quantile_disc(freshness, [0.2, 0.4, 0.6, 0.8]) as rs,
        quantile_disc(frequency, [0.2, 0.4, 0.6, 0.8]) as fs,
        quantile_disc(monetary_minor, [0.2, 0.4, 0.6, 0.8]) as ms,
        -quantile_disc(-spend_12m_minor, 0.05) filter (orders_12m > 0) as vip
    from valued
),
scored as (
    select valued.*,
        1 + (freshness > rs[1])::int + (freshness > rs[2])::int + (freshness > rs[3])::int
            + (freshness > rs[4])::int as r,
        1 + (frequency > fs[1])::int + (frequency > fs[2])::int + (frequency > fs[3])::int
            + (frequency > fs[4])::int as f,
        1 + (monetary_minor > ms[1])::int + (monetary_minor > ms[2])::int + (monetary_minor > ms[3])::int
            + (monetary_minor > ms[4])::int as m,
        orders_12m > 0 and spend_12m_minor >= cuts.vip as vip
    from valued, cuts
)
select *,
    case when r = 5 and f >= 4 then 'champions'
        when r >= 3 and f >= 4 then 'loyal_customers'
        when r >= 4 and f >= 2 then 'potential_loyalists'
        when r = 5 then 'new_customers'
        when r = 4 then 'promising'
        when r = 3 and f = 3 then 'need_attention'
        when r = 3 then 'about_to_sleep'
        when f = 5 then 'cant_lose'
        when f >= 3 then 'at_risk'
        else 'hibernating' end as rfm_segment,
    first_order_at >= {now} - 30 * {day} as new,
    frequency = 1 as one_time,
    spend_12m_minor > 50000 as high_value,
    last_order_at < {now} - 90 * {day} as dormant
from scored order by customer_id
"""


def bare_sql(now: int, *, published: bool) -> str:
    """`now`: microseconds since 1970. `published`: the six metrics that others compute too, in place of all."""
    metrics = _PUBLISHED if published else _METRICS
    return (metrics + _SEGMENTS).format(now=now, day=_DAY, year_ago=now - 365 * _DAY)

/* subak
stored_as: table
description: Orders shipped late and the later orders of the same customer that follow each of them, level by level
columns:
  customer_key: key of dim_customers
  order_number: order number
  shipping_date: shipping date
  due_date: due date
  level: 1 for a late order line, n + 1 for a line ordered after a line of level n was shipped
  chains: number of chains that reach this line at this level, counted up to a billion
checks:
  - not_null: [order_number, level, chains]
  - { sql: "select * from {{ this }} where level not between 1 and 20 or chains < 1", name: level_in_range }
*/
-- Chains are counted, not listed: a list grows exponentially with the orders of a customer.
-- A step goes to a strictly later order date, so no chain meets a line twice; level 20 ends it.
with recursive lines as (
    select
        customer_key,
        order_number,
        order_date,
        shipping_date,
        due_date,
        shipping_date > due_date as is_late
    from gold.fact_sales
),

order_days as (
    select distinct
        customer_key,
        order_date
    from lines
),

-- How many lines of one day were shipped before a later order day of the same customer.
steps as (
    select
        line.customer_key,
        line.order_date as from_date,
        later.order_date as to_date,
        count(*) as lines,
        count(*) filter (where line.is_late) as late_lines
    from lines as line
    join order_days as later
        on line.customer_key = later.customer_key
        and later.order_date > greatest(line.order_date, line.shipping_date)
    group by 1, 2, 3
),

-- How many chains reach each line of an order day at a level.
reached as (
    select
        customer_key,
        to_date as order_date,
        2 as level,
        cast(least(sum(late_lines), 1000000000) as bigint) as chains
    from steps
    where late_lines > 0
    group by 1, 2, 3

    union all

    select
        step.customer_key,
        step.to_date as order_date,
        reached.level + 1 as level,
        cast(least(sum(reached.chains * step.lines), 1000000000) as bigint) as chains
    from reached
    join steps as step
        on reached.customer_key = step.customer_key
        and reached.order_date = step.from_date
    where reached.level < 20
    group by 1, 2, 3
)

select
    customer_key,
    order_number,
    shipping_date,
    due_date,
    1 as level,
    cast(1 as bigint) as chains
from lines
where is_late

union all

select
    line.customer_key,
    line.order_number,
    line.shipping_date,
    line.due_date,
    reached.level,
    reached.chains
from reached
join lines as line
    on reached.customer_key = line.customer_key
    and reached.order_date = line.order_date

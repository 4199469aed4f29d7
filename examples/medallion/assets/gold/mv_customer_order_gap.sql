/* subak
stored_as: view
description: Mean number of days between two successive order lines of a customer
columns:
  customer_id: customer id, null for unknown customers
  avg_gap_days: mean number of days between order lines (0 inside one order), null if only one has a date
checks:
  - unique: customer_id
*/
with lines as (
    select
        customer.customer_id,
        sale.order_date,
        lag(sale.order_date) over (
            partition by customer.customer_id
            order by sale.order_date nulls last
        ) as previous_date
    from gold.fact_sales as sale
    join gold.dim_customers as customer
        on sale.customer_key = customer.customer_key
)

select
    customer_id,
    cast(avg(order_date - previous_date) as decimal(18, 6)) as avg_gap_days
from lines
where previous_date is not null
group by customer_id

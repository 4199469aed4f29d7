/* subak
stored_as: table
description: Order lines of each customer in order of time, with the running sum of sales
columns:
  customer_id: customer id, null for unknown customers
  line_number: position of the line among the lines of the customer
  order_date: order date; lines without one come last
  order_number: order number
  product_key: key of dim_products
  sales: amount of the line
  running_sales: sum of sales up to and including this line
checks:
  - not_null: [line_number]
*/
-- Order number, product and amounts decide inside a day, so that every run gives the same rows.
select
    customer.customer_id,
    row_number() over in_time as line_number,
    sale.order_date,
    sale.order_number,
    sale.product_key,
    sale.sales,
    sum(sale.sales) over in_time as running_sales
from gold.fact_sales as sale
join gold.dim_customers as customer
    on sale.customer_key = customer.customer_key
window in_time as (
    partition by customer.customer_id
    order by
        sale.order_date nulls last,
        sale.order_number,
        sale.product_key,
        sale.product_number,
        sale.sales nulls last
    rows unbounded preceding
)

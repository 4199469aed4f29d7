/* subak
stored_as: view
description: Sales and number of orders per customer over all time
columns:
  customer_id: customer id, null for unknown customers
  customer_name: first and last name
  lifetime_value: sum of sales
  order_count: number of different orders
checks:
  - unique: customer_id
  - { sql: "select 1 from {{ this }} having sum(lifetime_value) <> (select sum(sales) from gold.fact_sales)", name: total_equals_fact }
*/
select
    customer.customer_id,
    customer.customer_firstname || ' ' || customer.customer_lastname as customer_name,
    sum(sale.sales) as lifetime_value,
    count(distinct sale.order_number) as order_count
from gold.fact_sales as sale
join gold.dim_customers as customer
    on sale.customer_key = customer.customer_key
group by 1, 2

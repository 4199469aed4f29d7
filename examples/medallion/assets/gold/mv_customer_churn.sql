/* subak
stored_as: table
description: First and last purchase per customer, and whether the customer was lost
columns:
  customer_id: customer id, null for unknown customers
  first_purchase: first order date
  last_purchase: last order date
  is_churn: true if the last order is older than six months
checks:
  - unique: customer_id
  - not_null: [is_churn]
*/
select
    customer.customer_id,
    min(sale.order_date) as first_purchase,
    max(sale.order_date) as last_purchase,
    coalesce(max(sale.order_date) < date '{{ as_of }}' - interval 6 month, false) as is_churn
from gold.fact_sales as sale
join gold.dim_customers as customer
    on sale.customer_key = customer.customer_key
group by 1

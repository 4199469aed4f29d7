/* subak
stored_as: view
description: Sales per customer, with the country
columns:
  country: country of residence
  customer_id: customer id, null for unknown customers
  customer_name: first and last name
  total_sales: sum of sales
checks:
  - { unique: customer_id, severity: warn }
  - { sql: "select 1 from {{ this }} having sum(total_sales) <> (select sum(sales) from gold.fact_sales)", name: total_equals_fact }
*/
select
    customer.country,
    customer.customer_id,
    customer.customer_firstname || ' ' || customer.customer_lastname as customer_name,
    sum(sale.sales) as total_sales
from gold.fact_sales as sale
join gold.dim_customers as customer
    on sale.customer_key = customer.customer_key
group by 1, 2, 3

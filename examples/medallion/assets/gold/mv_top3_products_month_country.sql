/* subak
stored_as: table
description: The three products with the highest sales per month and country, ties kept
columns:
  month: first day of the month of the order, null for orders without a date
  country: country of the customer
  product_name: product name, null for unknown products
  total_sales: sum of sales
  rank_sales: rank within month and country
checks:
  - accepted_values: { column: rank_sales, values: [1, 2, 3] }
*/
with monthly as (
    select
        cast(date_trunc('month', sale.order_date) as date) as month,
        customer.country,
        product.product_name,
        sum(sale.sales) as total_sales
    from gold.fact_sales as sale
    join gold.dim_customers as customer
        on sale.customer_key = customer.customer_key
    join gold.dim_products as product
        on sale.product_key = product.product_key
    group by 1, 2, 3
),

-- A product whose sales are all null ranks first, as it does in PostgreSQL.
ranked as (
    select
        *,
        rank() over (
            partition by month, country
            order by total_sales desc nulls first
        ) as rank_sales
    from monthly
)

select
    month,
    country,
    product_name,
    total_sales,
    rank_sales
from ranked
where rank_sales <= 3

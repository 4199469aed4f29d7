/* subak
stored_as: view
description: Sales per month and product, with category and subcategory
columns:
  month: first day of the month of the order, null for orders without a date
  product_name: product name, null for unknown products
  category: category
  sub_category: subcategory
  total_sales: sum of sales
checks:
  - { sql: "select 1 from {{ this }} having sum(total_sales) <> (select sum(sales) from gold.fact_sales)", name: total_equals_fact }
*/
select
    cast(date_trunc('month', sale.order_date) as date) as month,
    product.product_name,
    product.category,
    product.sub_category,
    sum(sale.sales) as total_sales
from gold.fact_sales as sale
join gold.dim_products as product
    on sale.product_key = product.product_key
group by 1, 2, 3, 4

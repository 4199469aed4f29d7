/* subak
stored_as: view
description: Sales by product line, category and subcategory with all subtotals
columns:
  product_line: product line, null in the grand total
  category: category, null in subtotals
  sub_category: subcategory, null in subtotals
  rollup_level: 0 for a subcategory, 1 for a category, 3 for a product line, 7 for the grand total
  total_sales: sum of sales
checks:
  - { sql: "select 1 from {{ this }} where rollup_level = 0 having sum(total_sales) <> (select sum(sales) from gold.fact_sales)", name: total_equals_fact }
*/
select
    product.product_line,
    product.category,
    product.sub_category,
    -- tells a subtotal from a product without category
    grouping(product.product_line, product.category, product.sub_category) as rollup_level,
    sum(sale.sales) as total_sales
from gold.fact_sales as sale
join gold.dim_products as product
    on sale.product_key = product.product_key
group by rollup (product.product_line, product.category, product.sub_category)

/* subak
stored_as: table
description: Order lines with the keys of customer and product
columns:
  order_number: order number
  product_key: key of dim_products, -1 where the product is not known
  customer_key: key of dim_customers, -1 where the customer is not known
  product_number: product number as the sale names it
  customer_id: customer id as the sale names it
  order_date: order date, null where the source has none that is valid
  shipping_date: shipping date
  due_date: due date
  sales: amount of the line in whole units
  quantity: number of pieces
  price: price of one piece in whole units
checks:
  - not_null: [order_number, product_key, customer_key]
  - relationships: { column: customer_key, to: gold.dim_customers.customer_key }
  - relationships: { column: product_key, to: gold.dim_products.product_key }
  - { sql: "select * from {{ this }} where customer_key = -1 or product_key = -1", name: customer_and_product_known, severity: warn }
  - { sql: "select 1 from {{ this }} having count(*) <> (select count(*) from silver.crm_sales_details)", name: one_row_per_order_line, severity: warn }
*/
select
    line.sls_ord_num as order_number,
    coalesce(product.product_key, -1) as product_key,
    coalesce(customer.customer_key, -1) as customer_key,
    line.sls_prd_key as product_number,
    line.sls_cust_id as customer_id,
    line.sls_order_dt as order_date,
    line.sls_ship_dt as shipping_date,
    line.sls_due_dt as due_date,
    line.sls_sales as sales,
    line.sls_quantity as quantity,
    line.sls_price as price
from silver.crm_sales_details as line
left join gold.dim_products as product
    on line.sls_prd_key = product.product_number
left join gold.dim_customers as customer
    on line.sls_cust_id = customer.customer_id

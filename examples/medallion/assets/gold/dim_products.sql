/* subak
stored_as: table
surrogate_key: { column: product_key, of: product_id }
description: Products in their current version, with their category
columns:
  product_key: surrogate key; -1 is the unknown member
  product_id: product version id of the CRM
  product_number: product number, the natural key
  product_name: product name
  product_line: Mountain, Road, Sport, Touring or Unknown
  category_id: category id
  category: category, null where the ERP does not know the category id
  sub_category: subcategory
  maintenance: whether the product needs maintenance, Yes or No
  product_cost: cost in whole units
  start_date: first day of the current version
checks:
  - unique: product_number
  - { sql: "select * from {{ this }} where category is null and product_key <> -1", name: category_known, severity: warn }
*/
select
    product.prd_id as product_id,
    product.prd_key as product_number,
    product.prd_nm as product_name,
    product.prd_line as product_line,
    product.cat_id as category_id,
    category.cat as category,
    category.subcat as sub_category,
    category.maintenance,
    product.prd_cost as product_cost,
    product.prd_start_dt as start_date
from silver.crm_prd_info as product
left join silver.erp_px_cat_g1v2 as category
    on product.cat_id = category.id
where product.prd_end_dt is null

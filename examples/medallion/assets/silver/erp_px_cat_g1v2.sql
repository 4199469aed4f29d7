/* subak
stored_as: table
description: ERP product categories
columns:
  id: category id
  cat: category
  subcat: subcategory
  maintenance: whether products of the category need maintenance, Yes or No
checks:
  - unique: id
  - not_null: [id]
  - accepted_values: { column: maintenance, values: ["Yes", "No"] }
*/
select
    id,
    trim(cat) as cat,
    trim(subcat) as subcat,
    trim(maintenance) as maintenance
from bronze.erp_px_cat_g1v2

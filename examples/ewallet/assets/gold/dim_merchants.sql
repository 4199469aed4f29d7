/* subak
description: One row per merchant, and one for sales whose merchant is not known.
stored_as: table
surrogate_key: { column: merchant_key, of: merchant_id }
checks: [ { unique: merchant_key }, { not_null: merchant_key } ]
*/
select merchant_id, merchant_name, category
from bronze.merchants

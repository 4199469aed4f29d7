/* subak
description: One row per merchant.
stored_as: table
checks: [ { unique: merchant_key }, { not_null: [merchant_key, merchant_id] } ]
*/
select md5('merchant ' || merchant_id) as merchant_key, merchant_id, merchant_name, category
from bronze.merchants

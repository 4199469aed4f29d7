/* subak
description: One row per successful transaction, with the keys of its dimensions.
stored_as: table
owner: finance
checks:
  - not_null: [transaction_id, user_key, merchant_key]
  - unique: transaction_id
  - relationships: { column: user_key, to: gold.dim_users.user_key }
  - { sql: "select * from {{ this }} where user_key = -1 or merchant_key = -1", name: everybody is known, severity: warn }
*/
select
    t.transaction_id,
    coalesce(u.user_key, -1) as user_key,
    coalesce(m.merchant_key, -1) as merchant_key,
    t.amount,
    t.amount_category,
    t.device_type,
    t.promo_code,
    t.transaction_time,
    t.transaction_date
from silver.transactions t
left join gold.dim_users u on u.user_id = t.user_id
left join gold.dim_merchants m on m.merchant_id = t.merchant_id

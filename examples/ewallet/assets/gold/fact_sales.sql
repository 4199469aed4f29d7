/* subak
description: One row per successful transaction, with the keys of its dimensions.
stored_as: table
owner: finance
checks:
  - not_null: [transaction_id, user_key, merchant_key]
  - unique: transaction_id
*/
select
    t.transaction_id,
    u.user_key,
    m.merchant_key,
    t.amount,
    t.amount_category,
    t.device_type,
    t.promo_code,
    t.transaction_time,
    t.transaction_date
from silver.transactions t
join gold.dim_users u on u.user_id = t.user_id
join gold.dim_merchants m on m.merchant_id = t.merchant_id

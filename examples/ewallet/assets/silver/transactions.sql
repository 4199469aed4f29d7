/* subak
description: Successful transactions, typed, with what their documents say and the band of their amount.
stored_as: table
tags: [daily]
checks:
  - not_null: [transaction_id, transaction_time, amount_category]
  - unique: transaction_id
  - { name: amounts are positive, sql: "select * from {{ this }} where amount <= 0" }
*/
with banded as (
    -- The highest band that the amount reaches.
    select t.transaction_id as transaction_id, max_by(b.amount_category, b.amount_from) as amount_category
    from bronze.transactions t
    join seeds.amount_bands b on t.amount >= b.amount_from
    group by t.transaction_id
)
select
    t.transaction_id as transaction_id,
    t.user_id,
    t.merchant_id,
    t.amount,
    banded.amount_category,
    coalesce({{ json_text('d.metadata', ['device', 'type']) }}, 'Unknown') as device_type,
    coalesce({{ json_text('d.metadata', ['promo']) }}, '') as promo_code,
    t.transaction_time,
    cast(t.transaction_time as date) as transaction_date
from bronze.transactions t
join banded on banded.transaction_id = t.transaction_id
left join bronze.transaction_documents d on d._id = t.transaction_id
where t.status = 'SUCCESS'

/* subak
description: What each user spends a day.
stored_as: table
owner: finance
tags: [daily]
checks: [ { unique: [transaction_date, user_id] } ]
*/
select f.transaction_date, u.user_id, u.full_name, sum(f.amount) as total_amount, count(*) as transaction_count
from gold.fact_sales f
join gold.dim_users u on u.user_key = f.user_key
group by f.transaction_date, u.user_id, u.full_name

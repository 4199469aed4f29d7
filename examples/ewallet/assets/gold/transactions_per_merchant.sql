/* subak
description: What each merchant sells.
stored_as: view
owner: finance
*/
select
    m.merchant_id,
    m.merchant_name,
    m.category,
    count(*) as transaction_count,
    sum(f.amount) as total_amount,
    round(avg(f.amount), 2) as average_amount
from gold.fact_sales f
join gold.dim_merchants m on m.merchant_key = f.merchant_key
group by m.merchant_id, m.merchant_name, m.category

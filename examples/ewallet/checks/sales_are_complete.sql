/* subak
description: Every successful transaction is a sale, and every sale is a successful transaction.
*/
select coalesce(t.transaction_id, f.transaction_id) as transaction_id
from silver.transactions t
full join gold.fact_sales f on f.transaction_id = t.transaction_id
where t.transaction_id is null or f.transaction_id is null

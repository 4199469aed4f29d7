/* subak
description: What is sold a day.
stored_as: table
checks: [ { unique: day } ]
*/
select cast(ordered_at as date) as day, count(*) as order_count, sum(amount) as amount
from seeds.orders
group by day

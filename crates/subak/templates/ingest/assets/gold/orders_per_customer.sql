/* subak
stored_as: table
*/
select customer, count(*) as order_count, sum(amount) as amount
from bronze.orders
group by customer

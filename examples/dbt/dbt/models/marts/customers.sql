select o.customer, r.region, sum(o.amount) as total
from {{ ref('paid_orders') }} o
left join {{ ref('regions') }} r on r.customer = o.customer
group by 1, 2

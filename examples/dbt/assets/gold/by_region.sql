/* subak
stored_as: table
checks: [ { not_null: total } ]
*/
-- Behind what dbt builds, in the same graph.
select region, sum(total) as total
from marts.customers
group by region

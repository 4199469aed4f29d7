/* subak
stored_as: table
*/
select segment, count(*) as customers, sum(total) as total
from gold.segments
group by segment

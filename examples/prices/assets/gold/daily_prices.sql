/* subak
partition: { daily: date, start: 2018-01-21, end: 2018-01-24 }
checks: [ { unique: date } ]
*/
select date, count(*) as trades, min(share_price) as low, max(share_price) as high, sum(amount) as amount
from prices
where date >= {{ partition.start }} and date < {{ partition.end }}
group by date

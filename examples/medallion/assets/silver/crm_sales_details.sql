/* subak
stored_as: table
description: CRM order lines with real dates and with sales, quantity and price that agree
columns:
  sls_ord_num: order number
  sls_prd_key: product number
  sls_cust_id: customer id
  sls_order_dt: order date, null where the file has none that is valid
  sls_ship_dt: shipping date
  sls_due_dt: due date
  sls_sales: amount of the line in whole units
  sls_quantity: number of pieces
  sls_price: price of one piece in whole units
checks:
  - not_null: [sls_ord_num, sls_prd_key, sls_cust_id]
  - { sql: "select * from {{ this }} where sls_order_dt is null", name: order_date_usable, severity: warn }
  - { sql: "select * from {{ this }} where sls_order_dt > sls_ship_dt or sls_order_dt > sls_due_dt", name: order_not_after_shipping_or_due, severity: warn }
  - { sql: "select * from {{ this }} where sls_sales is distinct from sls_quantity * sls_price or sls_sales <= 0", name: sales_equals_quantity_times_price, severity: warn }
*/
with typed as (
    select
        sls_ord_num,
        sls_prd_key,
        try_cast(regexp_extract(sls_cust_id, '^ *([0-9]+) *$', 1) as bigint) as sls_cust_id,
        -- Dates are numbers of the form YYYYMMDD; 0 and every other length mean none.
        cast(try_strptime(regexp_extract(sls_order_dt, '^ *([0-9]{8}) *$', 1), '%Y%m%d') as date) as sls_order_dt,
        cast(try_strptime(regexp_extract(sls_ship_dt, '^ *([0-9]{8}) *$', 1), '%Y%m%d') as date) as sls_ship_dt,
        cast(try_strptime(regexp_extract(sls_due_dt, '^ *([0-9]{8}) *$', 1), '%Y%m%d') as date) as sls_due_dt,
        try_cast(sls_sales as decimal(20, 5)) as sales,
        try_cast(regexp_extract(sls_quantity, '^ *(-?[0-9]+) *$', 1) as integer) as quantity,
        try_cast(sls_price as decimal(20, 5)) as price
    from bronze.crm_sales_details
),

-- |sales| / quantity as two whole numbers (times 100000), because `/` would be floating point.
measured as (
    select
        *,
        quantity * abs(price) as computed_sales,
        cast(abs(sales) * 100000 as hugeint) as numerator,
        abs(cast(quantity as hugeint)) * 100000 as denominator
    from typed
)

select
    sls_ord_num,
    sls_prd_key,
    sls_cust_id,
    sls_order_dt,
    sls_ship_dt,
    sls_due_dt,
    try_cast(
        round(
            case
                when sales is null or sales <= 0 or sales <> computed_sales then computed_sales
                else sales
            end
        ) as decimal(18, 0)
    ) as sls_sales,
    quantity as sls_quantity,
    try_cast(
        case
            when price > 0 then round(price)
            -- rounded half away from zero; no price without a quantity
            when quantity <> 0 then sign(quantity) * ((2 * numerator + denominator) // (2 * denominator))
        end as decimal(18, 0)
    ) as sls_price
from measured

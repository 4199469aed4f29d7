/* subak
stored_as: table
description: CRM products, one row for each version of a product, with the category id split off the key
columns:
  prd_id: product version id of the CRM
  cat_id: category id, the key of erp_px_cat_g1v2
  prd_key: product number, the key used by sales
  prd_nm: product name
  prd_cost: cost in whole units, 0 where none was given
  prd_line: Mountain, Road, Sport, Touring or Unknown
  prd_start_dt: first day of this version
  prd_end_dt: last day of this version, null for the current one
checks:
  - { unique: prd_id, severity: warn }
  - not_null: [prd_id, prd_key, prd_cost]
  - accepted_values: { column: prd_line, values: [Mountain, Road, "{{ var('sport', 'Sport') }}", Touring, "{{ var('unknown', 'Unknown') }}"] }
  - { sql: "select * from {{ this }} where prd_cost < 0", name: cost_not_negative, severity: warn }
  - { sql: "select * from {{ this }} where prd_end_dt < prd_start_dt", name: end_not_before_start }
*/
with typed as (
    select
        try_cast(regexp_extract(prd_id, '^ *([0-9]+) *$', 1) as bigint) as prd_id,
        prd_key as full_key,
        trim(prd_nm) as prd_nm,
        try_cast(prd_cost as decimal(18, 5)) as cost,
        upper(trim(prd_line)) as line_code,
        try_cast(regexp_extract(prd_start_dt, '^ *([0-9]{4}-[0-9]{2}-[0-9]{2})( 00:00:00)? *$', 1) as date) as prd_start_dt,
        line
    from bronze.crm_prd_info
)

select
    prd_id,
    replace(substring(full_key, 1, 5), '-', '_') as cat_id,
    substring(full_key, 7) as prd_key,
    prd_nm,
    coalesce(cast(round(cost) as bigint), 0) as prd_cost,
    case line_code
        when 'M' then 'Mountain'
        when 'R' then 'Road'
        when 'S' then '{{ var('sport', 'Sport') }}'
        when 'T' then 'Touring'
        else '{{ var('unknown', 'Unknown') }}'
    end as prd_line,
    prd_start_dt,
    -- The end dates of the file are wrong: a version ends the day before the next one starts.
    lead(prd_start_dt) over (partition by full_key order by prd_start_dt, line) - 1 as prd_end_dt
from typed

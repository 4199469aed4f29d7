/* subak
stored_as: table
description: ERP customers with the country they live in
columns:
  cid: customer number, the key shared with the CRM
  cntry: country name, Unknown where none was given
checks:
  - { unique: cid, severity: warn }
  - not_null: [cid, cntry]
*/
with typed as (
    select
        trim(replace(cid, '-', '')) as cid,
        coalesce(trim(cntry), '') as country_code
    from bronze.erp_loc_a101
)

select
    cid,
    case
        when country_code = 'DE' then 'Germany'
        when country_code in ('US', 'USA') then 'United States'
        when country_code = '' then '{{ var('unknown', 'Unknown') }}'
        else country_code
    end as cntry
from typed

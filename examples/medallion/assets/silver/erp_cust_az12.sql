/* subak
stored_as: table
description: ERP customers with birth date and gender
columns:
  cid: customer number, the key shared with the CRM
  bdate: birth date, null where it lies in the future
  gen: Female, Male or Unknown
checks:
  - { unique: cid, severity: warn }
  - not_null: [cid]
  - accepted_values: { column: gen, values: [Female, Male, "{{ var('unknown', 'Unknown') }}"] }
  - { sql: "select * from {{ this }} where bdate < date '1924-01-01' or bdate > date '{{ as_of }}'", name: birth_date_plausible, severity: warn }
*/
with typed as (
    select
        case
            when starts_with(cid, 'NAS') then substring(cid, 4)
            else cid
        end as cid,
        try_cast(regexp_extract(bdate, '^ *([0-9]{4}-[0-9]{2}-[0-9]{2})( 00:00:00)? *$', 1) as date) as birth_date,
        upper(trim(gen)) as gender_code
    from bronze.erp_cust_az12
)

select
    cid,
    case when birth_date <= date '{{ as_of }}' then birth_date end as bdate,
    case
        when gender_code in ('F', 'FEMALE') then 'Female'
        when gender_code in ('M', 'MALE') then 'Male'
        else '{{ var('unknown', 'Unknown') }}'
    end as gen
from typed

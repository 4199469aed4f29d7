/* subak
stored_as: table
description: CRM customers, the newest row of each customer id, with codes spelled out
columns:
  cst_id: customer id of the CRM
  cst_key: customer number, the key shared with the ERP
  cst_firstname: first name
  cst_lastname: last name
  cst_marital_status: Married, Single or Unknown
  cst_gndr: Female, Male or Unknown
  cst_create_date: day the customer was entered, never in a year after this one
checks:
  - unique: cst_id
  - not_null: [cst_id, cst_key]
  - accepted_values: { column: cst_marital_status, values: [Married, Single, "{{ var('unknown', 'Unknown') }}"] }
  - accepted_values: { column: cst_gndr, values: [Female, Male, "{{ var('unknown', 'Unknown') }}"] }
  - { sql: "select * from {{ this }} where cst_key <> trim(cst_key) or cst_firstname <> trim(cst_firstname) or cst_lastname <> trim(cst_lastname)", name: no_outer_spaces }
  - { sql: "select * from {{ this }} where year(cst_create_date) > year(date '{{ as_of }}')", name: create_date_not_in_a_later_year }
*/
with typed as (
    select
        try_cast(regexp_extract(cst_id, '^ *([0-9]+) *$', 1) as bigint) as cst_id,
        trim(cst_key) as cst_key,
        trim(cst_firstname) as cst_firstname,
        trim(cst_lastname) as cst_lastname,
        upper(trim(cst_marital_status)) as marital_code,
        upper(trim(cst_gndr)) as gender_code,
        try_cast(regexp_extract(cst_create_date, '^ *([0-9]{4}-[0-9]{2}-[0-9]{2})( 00:00:00)? *$', 1) as date) as create_date,
        line
    from bronze.crm_cust_info
),

-- A row without a date counts as the newest one; on a tie the last line of the file wins.
ranked as (
    select
        *,
        row_number() over (
            partition by cst_id
            order by create_date desc nulls first, line desc
        ) as newest
    from typed
    where cst_id is not null
)

select
    cst_id,
    cst_key,
    cst_firstname,
    cst_lastname,
    case marital_code
        when 'M' then 'Married'
        when 'S' then 'Single'
        else '{{ var('unknown', 'Unknown') }}'
    end as cst_marital_status,
    case gender_code
        when 'F' then 'Female'
        when 'M' then 'Male'
        else '{{ var('unknown', 'Unknown') }}'
    end as cst_gndr,
    -- A year after this one is pulled back to this one; 29 February becomes the 28th if it must.
    case
        when year(create_date) > year(date '{{ as_of }}')
            then cast(create_date - to_years(cast(year(create_date) - year(date '{{ as_of }}') as integer)) as date)
        else create_date
    end as cst_create_date
from ranked
where newest = 1

/* subak
stored_as: table
surrogate_key: { column: customer_key, of: customer_id }
description: Customers, CRM first and completed from the ERP
columns:
  customer_key: surrogate key; -1 is the unknown member
  customer_id: customer id of the CRM, the natural key
  customer_number: customer number, shared by CRM and ERP
  customer_firstname: first name
  customer_lastname: last name
  gender: Female, Male or Unknown; the CRM wins over the ERP
  marital_status: Married, Single or Unknown
  country: country of residence, null where the ERP does not know the customer
  birth_date: birth date, null where the ERP has none that is valid
  create_date: day the customer was entered in the CRM
checks:
  - { unique: customer_id, severity: warn }
  - accepted_values: { column: gender, values: [Female, Male, "{{ var('unknown', 'Unknown') }}"] }
*/
select
    crm.cst_id as customer_id,
    crm.cst_key as customer_number,
    crm.cst_firstname as customer_firstname,
    crm.cst_lastname as customer_lastname,
    case
        when crm.cst_gndr <> '{{ var('unknown', 'Unknown') }}' then crm.cst_gndr
        else coalesce(erp.gen, '{{ var('unknown', 'Unknown') }}')
    end as gender,
    crm.cst_marital_status as marital_status,
    location.cntry as country,
    erp.bdate as birth_date,
    crm.cst_create_date as create_date
from silver.crm_cust_info as crm
left join silver.erp_cust_az12 as erp
    on crm.cst_key = erp.cid
left join silver.erp_loc_a101 as location
    on crm.cst_key = location.cid

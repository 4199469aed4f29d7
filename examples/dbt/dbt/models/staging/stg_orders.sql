select id, customer, amount from {{ source('bronze', 'orders') }}

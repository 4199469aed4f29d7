/* subak
stored_as: incremental
mode: append
*/
select * from bronze.rent
{% if is_incremental() %}where created_at > (select max(created_at) from {{ this }}){% endif %}

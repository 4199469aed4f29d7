/* subak
stored_as: incremental
unique_key: id
deduplicate: created_at desc
checks: [ { not_null: id }, { unique: id } ]
*/
select * from staging.member

/* subak
description: One row per user.
stored_as: table
checks: [ { unique: user_key }, { not_null: [user_key, user_id] } ]
*/
select md5('user ' || user_id) as user_key, user_id, full_name, email, cast(created_at as date) as member_since
from bronze.users

/* subak
description: One row per user, and one for sales whose user is not known.
stored_as: table
surrogate_key: { column: user_key, of: user_id }     # a number that each user gets once and keeps for ever; -1 is the unknown one
columns:
  user_key: key of the user in the warehouse
  user_id: id of the user in the application
  member_since: day on which the user joined
checks: [ { unique: user_key }, { not_null: user_key } ]
*/
select user_id, full_name, email, cast(created_at as date) as member_since
from bronze.users

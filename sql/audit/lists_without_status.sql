-- Every list belongs to a user with a status, and a user has one status per date.
SELECT as_of_date, user_id FROM recommendations
ANTI JOIN user_status USING (as_of_date, user_id)
UNION ALL
SELECT as_of_date, user_id FROM user_status GROUP BY ALL HAVING count(*) > 1

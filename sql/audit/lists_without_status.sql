-- Every list belongs to a user with a status, and a user has one status per date. Every list has one row of rank 1, of the date
-- and user of them all: `rank_gaps` proves that.
SELECT as_of_date, user_id FROM recommendations
ANTI JOIN user_status USING (as_of_date, user_id)
WHERE rank = 1
UNION ALL
SELECT as_of_date, user_id FROM user_status GROUP BY ALL HAVING count(*) > 1

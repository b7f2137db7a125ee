-- `recjob recommend`: how one user's newest list came about. $user has the type of the ids.
SELECT user_id, as_of_date, segment, n_ratings, n_recommendations, short_reason, run_id
FROM user_status
WHERE user_id = $user AND as_of_date = (SELECT max(as_of_date) FROM user_status)

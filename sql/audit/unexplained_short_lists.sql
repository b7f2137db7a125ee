-- A list is as long as its status says, and top_n long unless there is a reason.
SELECT s.as_of_date, s.user_id
FROM user_status s
JOIN runs u USING (run_id)
LEFT JOIN (SELECT as_of_date, user_id, count(*) AS n FROM recommendations GROUP BY ALL) r USING (as_of_date, user_id)
WHERE coalesce(r.n, 0) <> s.n_recommendations
   OR s.n_recommendations > u.top_n
   OR (s.n_recommendations < u.top_n) <> (s.short_reason IS NOT NULL)

-- A list is as long as its status says, and top_n long unless there is a reason. A list reaches to the next row of rank 1:
-- `rank_gaps` proves that. In no other order than by rowid do these rows follow each other: a filter or a join below a window
-- without one hands small pieces on later than large ones.
WITH lists AS (
  SELECT as_of_date, user_id,
         coalesce(lead(rowid) OVER (ORDER BY rowid), (SELECT count(*) FROM recommendations)) - rowid AS n
  FROM recommendations WHERE rank = 1
)
SELECT s.as_of_date, s.user_id
FROM user_status s
JOIN runs u ON u.run_id = s.run_id
LEFT JOIN lists l ON l.as_of_date = s.as_of_date AND l.user_id = s.user_id
WHERE coalesce(l.n, 0) <> s.n_recommendations
   OR s.n_recommendations > u.top_n
   OR (s.n_recommendations < u.top_n) <> (s.short_reason IS NOT NULL)

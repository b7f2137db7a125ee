-- A better rank never has a lower score, among the rows that stand where their score puts them: not those that a rule placed
-- (pinned, new_movie, filler) or moved back (reason).
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, score, lag(score) OVER (PARTITION BY as_of_date, user_id ORDER BY rank) AS score_before
  FROM recommendations WHERE reason IS NULL AND source IN ('model', 'cold_user')
)
WHERE score > score_before

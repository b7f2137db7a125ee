-- A better rank never has a lower score, among the rows that stand where their score puts them: not those that a rule placed
-- (pinned, new_movie, filler) or moved back (reason). Neighbours are looked at in the order of the table, which only a plain look
-- at all rows keeps (OVER ()); rows of one list have one `rowid - rank`: `rank_gaps` proves that. Lists with rows of a rule between
-- are looked at one by one.
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, score, rowid - rank AS list, reason IS NULL AND source IN ('model', 'cold_user') AS by_score,
         lag(score) OVER () AS score_before, lag(rowid - rank) OVER () AS list_before,
         lag(reason IS NULL AND source IN ('model', 'cold_user')) OVER () AS by_score_before
  FROM recommendations
)
WHERE by_score AND by_score_before AND list = list_before AND score > score_before
UNION ALL
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, score, lag(score) OVER (PARTITION BY as_of_date, user_id ORDER BY rank) AS score_before
  FROM recommendations SEMI JOIN (
    SELECT DISTINCT as_of_date, user_id FROM recommendations WHERE reason IS NOT NULL OR source NOT IN ('model', 'cold_user')
  ) USING (as_of_date, user_id)
  WHERE reason IS NULL AND source IN ('model', 'cold_user')
)
WHERE score > score_before

-- A better rank never has a lower score, among the rows that stand where their score puts them: not those that a rule placed
-- (pinned, new_movie, filler) or moved back (reason). Rows of one list have one `rowid - rank`: `rank_gaps` proves that.
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, score, rowid - rank AS list,
         lag(score) OVER () AS score_before, lag(rowid - rank) OVER () AS list_before
  FROM recommendations WHERE reason IS NULL AND source IN ('model', 'cold_user')
)
WHERE list = list_before AND score > score_before

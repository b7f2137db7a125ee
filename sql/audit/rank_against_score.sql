-- A better rank never has a lower score. Neighbours in the table are neighbours in a list: `rank_gaps` proves that.
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, score,
         lag(as_of_date) OVER () AS date_before, lag(user_id) OVER () AS user_before, lag(score) OVER () AS score_before
  FROM recommendations
)
WHERE as_of_date = date_before AND user_id = user_before AND score > score_before

-- A better rank never has a lower score. The row before one of rank 2 or more is of the same list: `rank_gaps` proves that.
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, rank, score, lag(score) OVER () AS score_before FROM recommendations
)
WHERE rank > 1 AND score > score_before

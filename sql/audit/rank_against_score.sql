-- A better rank never has a lower score.
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, score > lag(score) OVER (PARTITION BY as_of_date, user_id ORDER BY rank) AS rises
  FROM recommendations
) WHERE rises

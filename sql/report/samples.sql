-- Two users each of those who rated nothing, little, some and much, always the same ones.
SELECT user_id, n_ratings, segment
FROM user_status
WHERE as_of_date = $day AND n_recommendations > 0
QUALIFY row_number() OVER (
  PARTITION BY CASE WHEN n_ratings = 0 THEN 0 WHEN n_ratings < 20 THEN 1 WHEN n_ratings < 100 THEN 2 ELSE 3 END
  ORDER BY hash(user_id), user_id
) <= 2
ORDER BY n_ratings, user_id;

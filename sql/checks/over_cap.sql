-- For the rule genre_cap: users with more than $cap movies of one genre in their first $places places.
WITH first AS (
  SELECT user_id, unnest(genres) AS genre
  FROM read_parquet($recommendations, hive_partitioning = false)
  JOIN read_parquet($movies, hive_partitioning = false) USING (movie_id)
  WHERE rank <= $places
)
SELECT count(DISTINCT user_id) FROM (SELECT user_id FROM first GROUP BY user_id, genre HAVING count(*) > $cap)

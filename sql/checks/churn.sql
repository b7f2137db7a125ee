-- For the gate: the share of the movies in the lists of an earlier partition that left them, of users with a list by the model in
-- both. Of many users one in $every is looked at. (Without the cast it would be 128-bit arithmetic.)
WITH now AS (
  SELECT user_id, movie_id FROM read_parquet($recommendations, hive_partitioning = false)
  WHERE source = 'model' AND hash(user_id) % $every::UBIGINT = 0
),
before AS (
  SELECT user_id, movie_id FROM read_parquet($before, hive_partitioning = false)
  WHERE source = 'model' AND user_id IN (SELECT user_id FROM now)
)
SELECT (SELECT count(*) FROM before ANTI JOIN now USING (user_id, movie_id)) / nullif((SELECT count(*) FROM before), 0)

-- The catalogue of the newest partition, and movies that only older ones still name. The parameter is the list of their
-- movies.parquet, newest first.
INSERT INTO movies BY NAME
SELECT * EXCLUDE (filename)
FROM read_parquet($1, filename = true, hive_partitioning = false)
QUALIFY row_number() OVER (PARTITION BY movie_id ORDER BY list_position($1, filename)) = 1
ORDER BY movie_id

-- Movies of a staged partition (a Parquet path) that their user has a rating for in the table `ratings`.
SELECT count(*) FROM read_parquet(?, hive_partitioning = false) r SEMI JOIN ratings USING (user_id, movie_id)

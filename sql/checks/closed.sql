-- Rows of a staged partition (a Parquet path) with a movie of the table `closed`.
SELECT count(*) FROM read_parquet(?, hive_partitioning = false) r SEMI JOIN closed USING (movie_id)

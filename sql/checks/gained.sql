-- In how many more lists of one partition than of another a movie is, the most gained first; negative for what was lost.
WITH one AS (SELECT movie_id, count(*) AS n FROM read_parquet($one, hive_partitioning = false) GROUP BY movie_id),
other AS (SELECT movie_id, count(*) AS n FROM read_parquet($other, hive_partitioning = false) GROUP BY movie_id),
titles AS (SELECT movie_id, title FROM read_parquet($movies, hive_partitioning = false))
SELECT coalesce(one.movie_id, other.movie_id) AS movie_id, title,
       coalesce(one.n, 0) AS before, coalesce(other.n, 0) AS after, coalesce(other.n, 0) - coalesce(one.n, 0) AS gained
FROM one FULL JOIN other USING (movie_id) LEFT JOIN titles USING (movie_id)
WHERE gained != 0
ORDER BY gained DESC, movie_id

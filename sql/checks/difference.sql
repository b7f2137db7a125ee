-- What the lists of one partition have that those of another do not, by user. Of many users one in $every is looked at.
WITH one AS (
  SELECT user_id, movie_id, rank FROM read_parquet($one, hive_partitioning = false) WHERE hash(user_id) % $every::UBIGINT = 0
),
other AS (
  SELECT user_id, movie_id, rank FROM read_parquet($other, hive_partitioning = false) WHERE hash(user_id) % $every::UBIGINT = 0
),
places AS (
  SELECT coalesce(a.user_id, b.user_id) AS user_id, a.rank AS before, b.rank AS after
  FROM one a FULL JOIN other b USING (user_id, movie_id)
),
users AS (
  SELECT user_id, count(before) AS had, count(after) AS has, bool_and(before IS NOT DISTINCT FROM after) AS same
  FROM places GROUP BY user_id
)
SELECT count(*) FILTER (had > 0 AND has > 0) AS users_in_both,
       count(*) FILTER (had = 0) AS users_only_in_other,
       count(*) FILTER (has = 0) AS users_only_in_one,
       count(*) FILTER (same) AS same_lists,
       (SELECT count(*) FILTER (before IS NULL) / greatest(count(after), 1) FROM places) AS entered,
       (SELECT count(*) FILTER (before IS NOT NULL AND after IS NOT NULL AND before != after) / greatest(count(after), 1) FROM places) AS moved
FROM users

-- For the gate: the lists of a staged partition as a whole. The model's own are looked at; cold users may well have one in common,
-- and what a rule put there (pinned, new movies) may stand in all of them.
WITH lists AS (
  SELECT bit_xor(hash(rank, movie_id)) AS list, min_by(movie_id, rank) AS first
  FROM read_parquet($recommendations, hive_partitioning = false) WHERE source = 'model'
  GROUP BY user_id
),
firsts AS (SELECT first, count(*) AS n FROM lists GROUP BY first)
SELECT (SELECT count(*) FROM lists) AS lists,
       (SELECT max(n) FROM (SELECT count(*) AS n FROM lists GROUP BY list)) AS same_list,
       (SELECT max(n) FROM firsts) AS same_first,
       (SELECT max_by(first, (n, first)) FROM firsts) AS first,
       (SELECT count(DISTINCT movie_id) FROM read_parquet($recommendations, hive_partitioning = false) WHERE source = 'model') AS movies,
       (SELECT count(*) FILTER (segment = 'cold') / greatest(count(*), 1) FROM read_parquet($user_status, hive_partitioning = false)) AS cold

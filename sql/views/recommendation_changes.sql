-- For owners: what entered, left or moved in each list between two published dates that follow each other.
CREATE VIEW recommendation_changes AS
WITH dates AS (
  SELECT as_of_date, lag(as_of_date) OVER (ORDER BY as_of_date) AS before
  FROM (SELECT DISTINCT as_of_date FROM recommendations)
),
newer AS (
  SELECT d.as_of_date, r.user_id, r.movie_id, r.rank
  FROM dates d JOIN recommendations r USING (as_of_date) WHERE d.before IS NOT NULL
),
older AS (
  SELECT d.as_of_date, r.user_id, r.movie_id, r.rank
  FROM dates d JOIN recommendations r ON r.as_of_date = d.before
)
SELECT coalesce(n.as_of_date, o.as_of_date) AS as_of_date,
       coalesce(n.user_id, o.user_id) AS user_id,
       coalesce(n.movie_id, o.movie_id) AS movie_id,
       o.rank AS old_rank,
       n.rank AS new_rank,
       CASE WHEN o.rank IS NULL THEN 'entered' WHEN n.rank IS NULL THEN 'left'
            WHEN n.rank < o.rank THEN 'up' WHEN n.rank > o.rank THEN 'down' ELSE 'same' END AS change
FROM newer n
FULL JOIN older o ON n.as_of_date = o.as_of_date AND n.user_id = o.user_id AND n.movie_id = o.movie_id;

COMMENT ON VIEW recommendation_changes IS 'Per date, user and movie: entered | left | up | down | same, against the published date before.';

-- What became of the lists since the published date before, of one user in $every: as the view recommendation_changes says, without
-- joining all dates.
WITH newer AS (
  SELECT user_id, movie_id, rank FROM recommendations WHERE as_of_date = $day AND hash(user_id) % $every::UBIGINT = 0
),
older AS (
  SELECT user_id, movie_id, rank FROM recommendations
  WHERE as_of_date = (SELECT max(as_of_date) FROM user_status WHERE as_of_date < $day) AND hash(user_id) % $every::UBIGINT = 0
)
SELECT CASE WHEN o.rank IS NULL THEN 'entered' WHEN n.rank IS NULL THEN 'left'
            WHEN n.rank < o.rank THEN 'up' WHEN n.rank > o.rank THEN 'down' ELSE 'same' END AS change,
       count(*) AS "rows", count(*) / sum(count(*)) OVER () AS share
FROM newer n FULL JOIN older o USING (user_id, movie_id)
WHERE (SELECT count(*) FROM older) > 0
GROUP BY change
ORDER BY "rows" DESC;

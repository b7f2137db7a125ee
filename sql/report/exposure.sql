-- In how many lists of a date each movie is, the most listed first, and in how many of the published date before; the rest of the
-- catalogue is in none.
WITH now AS (
  SELECT movie_id, count(*) AS n FROM recommendations WHERE as_of_date = $day GROUP BY movie_id
),
before AS (
  SELECT movie_id, count(*) AS n FROM recommendations
  WHERE as_of_date = (SELECT max(as_of_date) FROM user_status WHERE as_of_date < $day)
  GROUP BY movie_id
)
SELECT m.movie_id, m.title, m.n_ratings, coalesce(now.n, 0) AS n_users, coalesce(before.n, 0) AS n_before
FROM movies m LEFT JOIN now USING (movie_id) LEFT JOIN before USING (movie_id)
ORDER BY n_users DESC, m.n_ratings DESC, m.movie_id;

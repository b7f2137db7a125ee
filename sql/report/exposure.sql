-- In how many lists of a date each movie is, the most listed first, and in how many of the published date before; the rest of the
-- catalogue is in none.
WITH before AS (
  SELECT * FROM movie_exposure WHERE as_of_date = (SELECT max(as_of_date) FROM user_status WHERE as_of_date < $day)
)
SELECT m.movie_id, m.title, m.n_ratings, coalesce(e.n_users, 0) AS n_users, coalesce(b.n_users, 0) AS n_before
FROM movies m
LEFT JOIN movie_exposure e ON e.movie_id = m.movie_id AND e.as_of_date = $day
LEFT JOIN before b ON b.movie_id = m.movie_id
ORDER BY n_users DESC, m.n_ratings DESC, m.movie_id;

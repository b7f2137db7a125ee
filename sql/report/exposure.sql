-- In how many lists of a date each movie is, the most listed first; the rest of the catalogue is in none.
SELECT m.movie_id, m.title, m.n_ratings, coalesce(e.n_users, 0) AS n_users, e.avg_rank
FROM movies m LEFT JOIN movie_exposure e ON e.movie_id = m.movie_id AND e.as_of_date = $day
ORDER BY n_users DESC, m.n_ratings DESC, m.movie_id;

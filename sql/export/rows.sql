-- The lists of a date, a row per place, with titles.
SELECT r.as_of_date, r.user_id, r.rank, r.movie_id, m.title, m.genres, r.score, r.predicted_rating, r.source
FROM recommendations r LEFT JOIN movies m USING (movie_id)
WHERE r.as_of_date = $day
ORDER BY r.user_id, r.rank;

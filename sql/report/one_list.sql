-- The first places of one list, with titles.
SELECT r.rank, r.movie_id, m.title, m.genres, r.predicted_rating, r.source
FROM recommendations r LEFT JOIN movies m USING (movie_id)
WHERE r.as_of_date = $day AND r.user_id = $user AND r.rank <= 10
ORDER BY r.rank;

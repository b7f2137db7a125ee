-- The same for spreadsheets: genres in one text, and a ' before what would be taken for a formula.
SELECT r.as_of_date, regexp_replace(r.user_id::VARCHAR, $formula, $shown) AS user_id, r.rank,
       regexp_replace(r.movie_id::VARCHAR, $formula, $shown) AS movie_id,
       regexp_replace(m.title, $formula, $shown) AS title,
       regexp_replace(array_to_string(m.genres, '|'), $formula, $shown) AS genres,
       r.score, r.predicted_rating, r.source
FROM recommendations r LEFT JOIN movies m USING (movie_id)
WHERE r.as_of_date = $day
ORDER BY r.user_id, r.rank;

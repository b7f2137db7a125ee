-- Every recommended movie is in the catalogue, and one of the newest date is available.
SELECT r.last_date, r.movie_id
FROM (SELECT movie_id, max(as_of_date) AS last_date FROM recommendations GROUP BY movie_id) r
LEFT JOIN movies m USING (movie_id)
WHERE m.movie_id IS NULL
   OR (NOT m.available AND r.last_date = (SELECT max(as_of_date) FROM recommendations))

-- Every recommended movie is in the catalogue, and one of the newest date is available.
SELECT DISTINCT r.as_of_date, r.movie_id FROM recommendations r LEFT JOIN movies m USING (movie_id)
WHERE m.movie_id IS NULL
   OR (NOT m.available AND r.as_of_date = (SELECT max(as_of_date) FROM recommendations))

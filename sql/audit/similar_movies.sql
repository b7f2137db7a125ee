-- Neighbours of a movie stand one after the other, by date and movie, ranks 1..k, the most alike first; none is the movie itself,
-- none stands there twice, each is in the catalogue and its run the one of its date.
SELECT as_of_date, movie_id FROM (
  SELECT as_of_date, movie_id, similar_movie_id, rank, similarity,
         lag(as_of_date) OVER () AS date_before, lag(movie_id) OVER () AS movie_before,
         lag(rank) OVER () AS rank_before, lag(similarity) OVER () AS similarity_before
  FROM similar_movies
)
WHERE similar_movie_id = movie_id OR NOT similarity BETWEEN -1 AND 1
   OR CASE WHEN as_of_date = date_before AND movie_id = movie_before THEN rank <> rank_before + 1 OR similarity > similarity_before
           ELSE rank <> 1 OR as_of_date < date_before OR (as_of_date = date_before AND movie_id < movie_before) END
UNION ALL
SELECT as_of_date, movie_id FROM similar_movies
GROUP BY as_of_date, movie_id
HAVING count(DISTINCT similar_movie_id) <> count(*)
UNION ALL
SELECT as_of_date, movie_id FROM similar_movies ANTI JOIN movies USING (movie_id) WHERE rank = 1
UNION ALL
SELECT as_of_date, similar_movie_id FROM (SELECT DISTINCT as_of_date, similar_movie_id FROM similar_movies) s
WHERE NOT EXISTS (FROM movies m WHERE m.movie_id = s.similar_movie_id)
UNION ALL
SELECT s.as_of_date, NULL FROM (SELECT DISTINCT as_of_date, run_id FROM similar_movies) s
WHERE NOT EXISTS (FROM user_status u WHERE u.as_of_date = s.as_of_date AND u.run_id = s.run_id)

-- For applications: more like this movie, of the newest published date, with titles.
CREATE VIEW current_similar_movies AS
SELECT s.movie_id, a.title, s.rank, s.similar_movie_id, b.title AS similar_title, b.genres AS similar_genres, s.similarity, s.as_of_date, s.run_id
FROM similar_movies s
LEFT JOIN movies a ON a.movie_id = s.movie_id
LEFT JOIN movies b ON b.movie_id = s.similar_movie_id
WHERE s.as_of_date = (SELECT max(as_of_date) FROM user_status);

COMMENT ON VIEW current_similar_movies IS 'More like this movie: similar_movies of the newest published date, with titles.';

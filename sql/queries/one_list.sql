-- `recjob recommend`: one user's newest list. $user has the type of the ids.
SELECT rank, movie_id, title, genres, score, predicted_rating, source
FROM current_recommendations
WHERE user_id = $user
ORDER BY rank

-- The lists of a date, one JSON object per user.
SELECT to_json({
  'as_of_date': r.as_of_date,
  'user_id': r.user_id,
  'movies': list({'rank': r.rank, 'movie_id': r.movie_id, 'title': m.title, 'predicted_rating': r.predicted_rating,
                  'score': r.score, 'source': r.source} ORDER BY r.rank)
}) AS line
FROM recommendations r LEFT JOIN movies m USING (movie_id)
WHERE r.as_of_date = $day
GROUP BY r.as_of_date, r.user_id
ORDER BY r.user_id;

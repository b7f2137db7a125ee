-- For caches and services: one row per user, the list as one value.
-- The newest date is looked up in user_status, which has a row per user and not per movie: a user's list is found sooner.
CREATE VIEW current_recommendation_lists AS
SELECT user_id, as_of_date,
       list({'rank': rank, 'movie_id': movie_id, 'score': score, 'predicted_rating': predicted_rating, 'source': source} ORDER BY rank) AS movies
FROM recommendations
WHERE as_of_date = (SELECT max(as_of_date) FROM user_status)
GROUP BY user_id, as_of_date;

COMMENT ON VIEW current_recommendation_lists IS 'The newest published date, one row per user with the list as one value.';

-- For applications and analysts: the newest published list of every user, with titles. Most users only need this.
-- The newest date is looked up in user_status, which has a row per user and not per movie: a user's list is found sooner.
CREATE VIEW current_recommendations AS
SELECT r.user_id, r.rank, r.movie_id, m.title, m.genres, r.score, r.predicted_rating, r.source, r.reason, r.as_of_date, r.run_id
FROM recommendations r
LEFT JOIN movies m USING (movie_id)
WHERE r.as_of_date = (SELECT max(as_of_date) FROM user_status);

COMMENT ON VIEW current_recommendations IS 'The newest published date, with titles. Most users only need this.';

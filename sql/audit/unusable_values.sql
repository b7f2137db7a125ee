-- Ranks are 1 to 1000, scores and stars finite, sources and reasons known. As CHECKs of the table these took a fifth of the time to fill it.
-- One by one, so that the least and the greatest value of a column mostly answer without a look at the rows; of Parquet they say
-- nothing of what is not a number, so each score and prediction is looked at.
SELECT as_of_date, user_id FROM recommendations WHERE rank NOT BETWEEN 1 AND 1000
UNION ALL
SELECT as_of_date, user_id FROM recommendations WHERE NOT isfinite(score)
UNION ALL
SELECT as_of_date, user_id FROM recommendations WHERE NOT isfinite(predicted_rating)
UNION ALL
SELECT as_of_date, user_id FROM recommendations WHERE source NOT IN ('model', 'cold_user', 'pinned', 'new_movie', 'filler')
UNION ALL
SELECT as_of_date, user_id FROM recommendations WHERE reason NOT IN ('genre_cap')
UNION ALL
SELECT as_of_date, user_id FROM user_status WHERE segment NOT IN ('warm', 'cold')

-- The middle and the spread of the predicted stars and the scores of each published date up to one, of one user in $every.
SELECT as_of_date,
       quantile_cont(predicted_rating, [0.05, 0.25, 0.5, 0.75, 0.95]) AS stars,
       quantile_cont(score, [0.05, 0.25, 0.5, 0.75, 0.95]) AS score
FROM recommendations
WHERE as_of_date <= $day AND hash(user_id) % $every::UBIGINT = 0
GROUP BY as_of_date
ORDER BY as_of_date;

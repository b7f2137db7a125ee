-- How predicted stars and scores are distributed on a date, and on the published date before it: shares of $classes, of one user in
-- $every. Stars from $low to $high, scores from the lowest to the highest of both dates.
WITH dates AS (
  SELECT DISTINCT as_of_date FROM user_status WHERE as_of_date <= $day ORDER BY as_of_date DESC LIMIT 2
),
listed AS (
  SELECT as_of_date, unnest(['stars', 'score']) AS figure, unnest([predicted_rating, score]) AS value
  FROM recommendations JOIN dates USING (as_of_date)
  WHERE hash(user_id) % $every::UBIGINT = 0
),
bounds AS (
  SELECT figure, min(if(figure = 'stars', $low, value)) AS low, max(if(figure = 'stars', $high, value)) AS high
  FROM listed GROUP BY figure
)
SELECT figure, as_of_date, low, high, class, count(*) / sum(count(*)) OVER (PARTITION BY figure, as_of_date) AS share
FROM (
  SELECT *, coalesce(least($classes - 1, greatest(0, floor($classes * (value - low) / nullif(high - low, 0)))), 0)::INTEGER AS class
  FROM listed JOIN bounds USING (figure)
)
GROUP BY figure, as_of_date, low, high, class
ORDER BY figure DESC, as_of_date DESC, class;

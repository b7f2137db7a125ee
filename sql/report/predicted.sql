-- How the predicted stars of a date, and of the published date before it, are distributed: shares of $classes from $low to $high.
WITH dates AS (
  SELECT DISTINCT as_of_date FROM recommendations WHERE as_of_date <= $day ORDER BY as_of_date DESC LIMIT 2
)
SELECT as_of_date, class, count(*) / sum(count(*)) OVER (PARTITION BY as_of_date) AS share
FROM (
  SELECT as_of_date,
         least($classes - 1, greatest(0, floor($classes * (predicted_rating - $low) / ($high - $low))))::INTEGER AS class
  FROM recommendations JOIN dates USING (as_of_date)
)
GROUP BY as_of_date, class
ORDER BY as_of_date DESC, class;

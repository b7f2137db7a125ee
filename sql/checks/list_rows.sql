-- For the audit: the lists one after the other, a number for each movie, and the score of what stands where its score puts it. Two
-- movies have the same number in a list of a night by chance once in thousands of millions of nights, and then the rule is asked.
SELECT rank, hash(movie_id) AS movie,
       CASE WHEN reason IS NULL AND source IN ('model', 'cold_user') THEN score END AS score
FROM recommendations

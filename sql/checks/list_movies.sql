-- For the audit: the lists one after the other, a number for each movie. Two movies have the same one in a list of a night by
-- chance once in thousands of millions of nights, and then the rule itself is asked.
SELECT rank, hash(movie_id) AS movie FROM recommendations

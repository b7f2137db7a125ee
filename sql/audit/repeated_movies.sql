-- A movie stands at most once in a list.
SELECT as_of_date, user_id FROM recommendations
GROUP BY as_of_date, user_id
HAVING count(DISTINCT movie_id) <> count(*)

-- Ranks of a list are 1..k without gaps or repeats.
SELECT as_of_date, user_id FROM recommendations
GROUP BY as_of_date, user_id
HAVING min(rank) <> 1 OR max(rank) <> count(*) OR count(DISTINCT rank) <> count(*)

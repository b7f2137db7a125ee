-- What became of the lists since the published date before, of one user in $every.
SELECT change, count(*) AS "rows", count(*) / sum(count(*)) OVER () AS share
FROM recommendation_changes
WHERE as_of_date = $day AND hash(user_id) % $every = 0
GROUP BY change
ORDER BY "rows" DESC;

-- Who the lists of a date are for, and where their rows come from.
SELECT s.segment, s.short_reason, count(*) AS users, sum(s.n_recommendations) AS "rows"
FROM user_status s
WHERE s.as_of_date = $day
GROUP BY ALL
ORDER BY users DESC;

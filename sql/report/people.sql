-- Who the lists of a date are for, by how much they have rated.
SELECT CASE WHEN s.n_ratings = 0 THEN 'no rating' WHEN s.n_ratings < 20 THEN '1 to 19 ratings'
            WHEN s.n_ratings < 100 THEN '20 to 99 ratings' ELSE '100 ratings or more' END AS who,
       count(*) AS users, count(*) FILTER (s.segment = 'cold') AS cold, sum(s.n_recommendations)::BIGINT AS "rows",
       count(s.short_reason) AS short, string_agg(DISTINCT s.short_reason, ', ' ORDER BY s.short_reason) AS short_reason
FROM user_status s
WHERE s.as_of_date = $day
GROUP BY who
ORDER BY min(s.n_ratings);

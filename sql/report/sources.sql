-- What put the rows of a date into the lists, the most first.
SELECT source, count(*) / sum(count(*)) OVER () AS share
FROM recommendations
WHERE as_of_date = $day
GROUP BY source
ORDER BY share DESC, source;

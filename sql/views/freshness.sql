-- For whoever sends the lists on: how old they are.
CREATE VIEW freshness AS
SELECT max(as_of_date) AS as_of_date,
       max(published_at) AS published_at,
       greatest(date_diff('minute', max(published_at), now() AT TIME ZONE 'UTC'), 0) / 60.0 AS hours_old
FROM runs
WHERE status = 'published';

COMMENT ON VIEW freshness IS 'Newest published date, when it was published (UTC), and hours since.';

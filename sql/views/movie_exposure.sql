-- For owners: how much of all lists each movie takes; popularity bias at a glance.
CREATE VIEW movie_exposure AS
SELECT as_of_date, movie_id, count(*) AS n_users, avg(rank) AS avg_rank,
       count(*) / sum(count(*)) OVER (PARTITION BY as_of_date) AS share
FROM recommendations
GROUP BY as_of_date, movie_id;

COMMENT ON VIEW movie_exposure IS 'Per date and movie: lists it is in, its mean rank, its share of all rows.';

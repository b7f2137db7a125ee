-- The newest nights, oldest first: how each ended, how long it took, how good its lists were on the ratings held out.
SELECT * FROM (
  SELECT r.as_of_date, r.run_id, r.status, r.n_users, r.n_ratings, r.peak_rss_mb,
         date_diff('millisecond', r.started_at, r.finished_at) / 1000 AS seconds,
         max(m.value) FILTER (m.metric = 'ndcg@10') AS ndcg,
         max(m.value) FILTER (m.metric = 'popularity_ndcg@10') AS popularity_ndcg,
         max(m.value) FILTER (m.metric = 'coverage@10') AS coverage,
         max(m.value) FILTER (m.metric = 'rmse') AS rmse
  FROM runs r LEFT JOIN metrics m ON m.run_id = r.run_id AND m.segment = 'all'
  WHERE r.status NOT IN ('unchanged', 'checked', 'running') AND r.run_id <= $run
  GROUP BY ALL
  ORDER BY r.run_id DESC
  LIMIT 30
)
ORDER BY run_id;

-- For owners: the measured figures of every run, by date.
CREATE VIEW quality_by_run AS
SELECT r.as_of_date, r.run_id, m.model_version, m.segment, m.metric, m.k, m.value, m.ci_low, m.ci_high, m.n
FROM metrics m JOIN runs r USING (run_id);

COMMENT ON VIEW quality_by_run IS 'Metrics with their as-of date.';

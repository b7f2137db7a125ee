-- Every row has its run, and every run of a row its date, its model and its input files.
SELECT r.first_date, r.run_id FROM (
  SELECT run_id, min(as_of_date) AS first_date, max(as_of_date) AS last_date FROM recommendations GROUP BY run_id
) r
LEFT JOIN runs u ON u.run_id = r.run_id AND u.as_of_date = r.first_date AND u.as_of_date = r.last_date AND u.status = 'published'
WHERE u.run_id IS NULL
   OR NOT EXISTS (FROM models m WHERE m.model_version = u.model_version)
   OR NOT EXISTS (FROM run_inputs i WHERE i.run_id = r.run_id)

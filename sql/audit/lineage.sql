-- Every row has its run, and every run of a row its model and its input files.
SELECT r.as_of_date, r.run_id FROM (SELECT DISTINCT as_of_date, run_id FROM recommendations) r
LEFT JOIN runs u ON u.run_id = r.run_id AND u.as_of_date = r.as_of_date AND u.status = 'published'
WHERE u.run_id IS NULL
   OR NOT EXISTS (FROM models m WHERE m.model_version = u.model_version)
   OR NOT EXISTS (FROM run_inputs i WHERE i.run_id = r.run_id)

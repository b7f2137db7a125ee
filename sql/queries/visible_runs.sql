-- The runs whose lists readers see now.
SELECT as_of_date, run_id, input_digest, published_at, model_version FROM runs
WHERE run_id IN (SELECT DISTINCT run_id FROM recommendations)

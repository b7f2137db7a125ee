-- What each table and column means, for whoever opens the file without the documentation.

COMMENT ON TABLE schema_info IS 'One row: the version of these tables and what wrote them.';
COMMENT ON COLUMN schema_info.schema_version IS 'Raised when a table or view changes in a way that can break a query.';
COMMENT ON COLUMN schema_info.recjob_version IS 'The recjob that wrote this file.';
COMMENT ON COLUMN schema_info.created_at IS 'When this file was built, UTC.';

COMMENT ON TABLE models IS 'Every model in the registry when this file was built.';
COMMENT ON COLUMN models.model_version IS 'As-of date and digest, e.g. 20261123-3f9c2a7b.';
COMMENT ON COLUMN models.created_at IS 'When it was stored, UTC.';
COMMENT ON COLUMN models.trained_through IS 'The watermark: no rating at or after this instant was used, UTC.';
COMMENT ON COLUMN models.digest IS 'sha256 of recipe, vocabularies and weights.';
COMMENT ON COLUMN models.alias IS 'champion: the model in use. Otherwise null.';
COMMENT ON COLUMN models.status IS 'accepted | refused (by the gate) | forced (used against the gate, see note).';
COMMENT ON COLUMN models.name IS 'The recipe it was made by, e.g. basic.';
COMMENT ON COLUMN models.parameters IS 'Trainable parameters.';
COMMENT ON COLUMN models.note IS 'The reason given with --force.';

COMMENT ON TABLE runs IS 'Every attempt that the journal knows, newest dates included, whatever came of it.';
COMMENT ON COLUMN runs.run_id IS 'Sorts by time.';
COMMENT ON COLUMN runs.as_of_date IS 'Only ratings before the end of this date (in the configured time zone) were used.';
COMMENT ON COLUMN runs.status IS 'published | staged | trained | checked | unchanged (same inputs as before) | refused | failed | crashed | cancelled | rolled_back | running.';
COMMENT ON COLUMN runs."trigger" IS 'manual | schedule | backfill.';
COMMENT ON COLUMN runs.started_at IS 'UTC.';
COMMENT ON COLUMN runs.finished_at IS 'UTC.';
COMMENT ON COLUMN runs.published_at IS 'When its list first became visible, UTC.';
COMMENT ON COLUMN runs.model_version IS 'The model that scored it; see models.';
COMMENT ON COLUMN runs.n_users IS 'Users with a list.';
COMMENT ON COLUMN runs.n_movies IS 'Candidate movies.';
COMMENT ON COLUMN runs.n_ratings IS 'Ratings used.';
COMMENT ON COLUMN runs.top_n IS 'Longest list.';
COMMENT ON COLUMN runs.input_digest IS 'Hash of everything the result depends on; equal inputs are not scored twice.';
COMMENT ON COLUMN runs.config_digest IS 'Hash of the settings.';
COMMENT ON COLUMN runs.output_digest IS 'Hash of the recommendations.';
COMMENT ON COLUMN runs.seed IS 'Seed of the training.';
COMMENT ON COLUMN runs.recjob_version IS 'The recjob that ran.';
COMMENT ON COLUMN runs.device IS 'cpu or the name of the GPU.';
COMMENT ON COLUMN runs.peak_rss_mb IS 'Most memory the process held, MB.';
COMMENT ON COLUMN runs.exit_code IS 'What recjob --help says of it.';
COMMENT ON COLUMN runs.error_kind IS 'The stable name of what went wrong, e.g. E_INPUT.';
COMMENT ON COLUMN runs.error_message IS 'What went wrong.';

COMMENT ON TABLE run_steps IS 'What each run did, in order, and what it took.';
COMMENT ON COLUMN run_steps.run_id IS 'See runs.';
COMMENT ON COLUMN run_steps.step IS 'check | train | score | publish | prune.';
COMMENT ON COLUMN run_steps.attempt IS '1 unless a step was repeated.';
COMMENT ON COLUMN run_steps.status IS 'running | done | failed.';
COMMENT ON COLUMN run_steps.started_at IS 'UTC.';
COMMENT ON COLUMN run_steps.finished_at IS 'UTC.';
COMMENT ON COLUMN run_steps.seconds IS 'Wall time.';
COMMENT ON COLUMN run_steps.cpu_seconds IS 'Processor time of all threads.';
COMMENT ON COLUMN run_steps."rows" IS 'Rows the step made or read.';
COMMENT ON COLUMN run_steps.peak_rss_mb IS 'Most memory the process had held by the end of the step, MB.';

COMMENT ON TABLE run_inputs IS 'Lineage: the files that the ratings of a run came from, and those of its rules.';
COMMENT ON COLUMN run_inputs.run_id IS 'See runs.';
COMMENT ON COLUMN run_inputs.path IS 'As read.';
COMMENT ON COLUMN run_inputs.sha256 IS 'Of the whole file.';
COMMENT ON COLUMN run_inputs.bytes IS 'Size of the file.';
COMMENT ON COLUMN run_inputs."rows" IS 'Rows in the file.';
COMMENT ON COLUMN run_inputs.rows_used IS 'Rows before the watermark that passed the checks.';
COMMENT ON COLUMN run_inputs.rows_future IS 'Rows at or after the watermark, or that arrived from --known-at on: not used for anything.';
COMMENT ON COLUMN run_inputs.rows_rejected IS 'Rows that failed a check; see rejected_rows.';
COMMENT ON COLUMN run_inputs.min_rated_at IS 'Of the rows used, UTC.';
COMMENT ON COLUMN run_inputs.max_rated_at IS 'Of the rows used, UTC.';
COMMENT ON COLUMN run_inputs.modified_at IS 'When the file was last written, UTC.';

COMMENT ON TABLE rejected_rows IS 'Rows of the input that could not be used, by reason.';
COMMENT ON COLUMN rejected_rows.run_id IS 'See runs.';
COMMENT ON COLUMN rejected_rows.path IS 'The file.';
COMMENT ON COLUMN rejected_rows.reason IS 'E.g. rating is null.';
COMMENT ON COLUMN rejected_rows."rows" IS 'How many.';
COMMENT ON COLUMN rejected_rows.first_row IS 'The first of them, 1-based.';

COMMENT ON TABLE metrics IS 'What was measured on the holdout before the model was used. Baselines are rows with their own metric names.';
COMMENT ON COLUMN metrics.run_id IS 'See runs.';
COMMENT ON COLUMN metrics.model_version IS 'See models.';
COMMENT ON COLUMN metrics.segment IS 'all | warm (user and movie have training ratings) | cold_user | cold_movie | by the training ratings of a warm user, whichever the movie: light_user (1-19), medium_user (20-99), heavy_user (100 or more).';
COMMENT ON COLUMN metrics.metric IS 'rmse | mae, in stars; or a ranking metric with its cut-off, e.g. ndcg@10. With a prefix for a baseline, e.g. mean_rmse.';
COMMENT ON COLUMN metrics.k IS 'Always null: the cut-off of a ranking metric is in its name, e.g. ndcg@10.';
COMMENT ON COLUMN metrics.value IS 'The figure.';
COMMENT ON COLUMN metrics.ci_low IS 'Lower end of the 95 % bootstrap interval over users, where it was computed.';
COMMENT ON COLUMN metrics.ci_high IS 'Its upper end.';
COMMENT ON COLUMN metrics.n IS 'Ratings measured on; users, for a ranking metric.';

COMMENT ON TABLE checks IS 'Every verdict on input, model and lists.';
COMMENT ON COLUMN checks.run_id IS 'See runs.';
COMMENT ON COLUMN checks.stage IS 'input | model | recommendations.';
COMMENT ON COLUMN checks.check_name IS 'What was looked at.';
COMMENT ON COLUMN checks.value IS 'What was found.';
COMMENT ON COLUMN checks.threshold IS 'The limit.';
COMMENT ON COLUMN checks.baseline IS 'What it was compared with.';
COMMENT ON COLUMN checks.severity IS 'warn | block.';
COMMENT ON COLUMN checks.verdict IS 'pass | warn | fail | overridden (by --force, on input by --accept-input) | skipped.';
COMMENT ON COLUMN checks.message IS 'In words.';

COMMENT ON TABLE movies IS 'The catalogue as of the newest date.';
COMMENT ON COLUMN movies.movie_id IS 'Id of the source, with its type.';
COMMENT ON COLUMN movies.title IS 'As in the source.';
COMMENT ON COLUMN movies.genres IS 'As in the source.';
COMMENT ON COLUMN movies."year" IS 'Of the release.';
COMMENT ON COLUMN movies.release_date IS 'Of the release, where the source has it.';
COMMENT ON COLUMN movies.available IS 'False: never recommended.';
COMMENT ON COLUMN movies.n_ratings IS 'Ratings before the watermark of the newest date.';

COMMENT ON TYPE published_run IS 'The runs of recommendations, user_status and similar_movies. Compares and joins as text does.';

COMMENT ON TABLE recommendations IS 'Top-N per date and user. Unique on (as_of_date, user_id, rank) and (as_of_date, user_id, movie_id): verified before publishing, no index kept. Sorted by as_of_date, user_id, rank. Replaced per date, never appended.';
COMMENT ON COLUMN recommendations.as_of_date IS 'Only ratings before the end of this date (in the configured time zone) were used.';
COMMENT ON COLUMN recommendations.user_id IS 'Id of the source, with its type.';
COMMENT ON COLUMN recommendations.rank IS '1 = best, without gaps, after all rules.';
COMMENT ON COLUMN recommendations.movie_id IS 'See movies.';
COMMENT ON COLUMN recommendations.score IS 'What the ranking is by: of the default model, the blend of choice, taste and stars in the model''s recipe, from the seventh place on less what it loses by standing in many lists; of the others, predicted stars before clipping. Comparable within one user and date only. Always finite. Rounded to 4 decimals after ranking: where two are equal, rank still says which was higher.';
COMMENT ON COLUMN recommendations.predicted_rating IS 'Stars, on the scale of the ratings, rounded to 3 decimals.';
COMMENT ON COLUMN recommendations.source IS 'model | cold_user (no rating to go by: what is popular of late; with basic and tuned, the most rated movies) | by a rule of [rules]: pinned | new_movie (a place kept for new movies) | filler (a movie with few ratings, in a list that would be short).';
COMMENT ON COLUMN recommendations.reason IS 'Why a row stands lower than its score: genre_cap (there were too many of its genre above). Otherwise null.';
COMMENT ON COLUMN recommendations.run_id IS 'The run that made it; see runs.';

COMMENT ON TABLE user_status IS 'One row per date and user: how the list came about.';
COMMENT ON COLUMN user_status.as_of_date IS 'See recommendations.';
COMMENT ON COLUMN user_status.user_id IS 'Id of the source, with its type.';
COMMENT ON COLUMN user_status.segment IS 'warm (the model has ratings to go by) | cold.';
COMMENT ON COLUMN user_status.n_ratings IS 'Ratings before the watermark.';
COMMENT ON COLUMN user_status.n_recommendations IS 'Length of the list.';
COMMENT ON COLUMN user_status.short_reason IS 'Why the list is shorter than top_n: catalogue_exhausted (no unseen candidate left) | opted_out (rules.opt_out: no list). Otherwise null.';
COMMENT ON COLUMN user_status.run_id IS 'See runs.';

COMMENT ON TABLE similar_movies IS 'Per date and candidate movie: the candidates that its model takes for most like it. Sorted by as_of_date, movie_id, rank. Empty with publish.similar_movies = 0.';
COMMENT ON COLUMN similar_movies.as_of_date IS 'See recommendations.';
COMMENT ON COLUMN similar_movies.movie_id IS 'See movies.';
COMMENT ON COLUMN similar_movies.rank IS '1 = most alike, without gaps.';
COMMENT ON COLUMN similar_movies.similar_movie_id IS 'See movies. A candidate of that date, never movie_id itself.';
COMMENT ON COLUMN similar_movies.similarity IS 'Cosine of the vectors that the model scores the two movies by, less their mean over the candidates: -1 to 1. Comparable within one date only. Rounded to 4 decimals after ranking.';
COMMENT ON COLUMN similar_movies.run_id IS 'The run that made it; see runs.';

COMMENT ON TABLE attached_files IS 'With publish.mode = "attach": the Parquet files that recommendations, user_status and similar_movies are views over. Empty otherwise.';
COMMENT ON COLUMN attached_files.run_id IS 'See runs.';
COMMENT ON COLUMN attached_files.table_name IS 'The view that shows it.';
COMMENT ON COLUMN attached_files.path IS 'Where it was when this file was built.';
COMMENT ON COLUMN attached_files.sha256 IS 'Of the whole file, as it was staged.';
COMMENT ON COLUMN attached_files.bytes IS 'Its size.';

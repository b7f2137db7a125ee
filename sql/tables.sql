-- The published tables, schema_version 1. $user_id and $movie_id are the types of the ids in the source: BIGINT or VARCHAR.
-- Times are UTC. No index and no key: `audit/` proves what they would promise, and the rows are sorted.

-- $runs are the runs whose lists follow, in order: as text, in every row, they took a fifth of the time to fill the tables.
CREATE TYPE published_run AS ENUM ($runs);

CREATE TABLE schema_info (
  schema_version INTEGER NOT NULL,
  recjob_version VARCHAR NOT NULL,
  created_at TIMESTAMP NOT NULL
);

CREATE TABLE models (
  model_version VARCHAR NOT NULL,
  created_at TIMESTAMP NOT NULL,
  trained_through TIMESTAMP NOT NULL,
  digest VARCHAR NOT NULL,
  alias VARCHAR,
  status VARCHAR NOT NULL CHECK (status IN ('accepted', 'refused', 'forced')),
  name VARCHAR NOT NULL,
  parameters BIGINT NOT NULL,
  note VARCHAR
);

CREATE TABLE runs (
  run_id VARCHAR NOT NULL,
  as_of_date DATE NOT NULL,
  status VARCHAR NOT NULL CHECK (status IN ('running', 'published', 'staged', 'trained', 'checked', 'unchanged', 'refused', 'failed', 'crashed', 'cancelled', 'rolled_back')),
  "trigger" VARCHAR NOT NULL CHECK ("trigger" IN ('manual', 'schedule', 'backfill')),
  started_at TIMESTAMP NOT NULL,
  finished_at TIMESTAMP,
  published_at TIMESTAMP,
  model_version VARCHAR,
  n_users BIGINT,
  n_movies BIGINT,
  n_ratings BIGINT,
  top_n SMALLINT,
  input_digest VARCHAR,
  config_digest VARCHAR,
  output_digest VARCHAR,
  seed BIGINT,
  recjob_version VARCHAR,
  device VARCHAR,
  peak_rss_mb INTEGER,
  exit_code SMALLINT,
  error_kind VARCHAR,
  error_message VARCHAR
);

CREATE TABLE run_steps (
  run_id VARCHAR NOT NULL,
  step VARCHAR NOT NULL,
  attempt SMALLINT NOT NULL,
  status VARCHAR NOT NULL CHECK (status IN ('running', 'done', 'failed')),
  started_at TIMESTAMP NOT NULL,
  finished_at TIMESTAMP,
  seconds DOUBLE,
  cpu_seconds DOUBLE,
  "rows" BIGINT,
  peak_rss_mb INTEGER
);

CREATE TABLE run_inputs (
  run_id VARCHAR NOT NULL,
  path VARCHAR NOT NULL,
  sha256 VARCHAR NOT NULL,
  bytes BIGINT NOT NULL,
  "rows" BIGINT NOT NULL,
  rows_used BIGINT NOT NULL,
  rows_future BIGINT NOT NULL,
  rows_rejected BIGINT NOT NULL,
  min_rated_at TIMESTAMP,
  max_rated_at TIMESTAMP,
  modified_at TIMESTAMP
);

CREATE TABLE rejected_rows (
  run_id VARCHAR NOT NULL,
  path VARCHAR NOT NULL,
  reason VARCHAR NOT NULL,
  "rows" BIGINT NOT NULL,
  first_row BIGINT NOT NULL
);

CREATE TABLE metrics (
  run_id VARCHAR NOT NULL,
  model_version VARCHAR NOT NULL,
  segment VARCHAR NOT NULL,
  metric VARCHAR NOT NULL,
  k SMALLINT,
  value DOUBLE NOT NULL,
  ci_low DOUBLE,
  ci_high DOUBLE,
  n BIGINT
);

CREATE TABLE checks (
  run_id VARCHAR NOT NULL,
  stage VARCHAR NOT NULL CHECK (stage IN ('input', 'model', 'recommendations')),
  check_name VARCHAR NOT NULL,
  value DOUBLE,
  threshold DOUBLE,
  baseline DOUBLE,
  severity VARCHAR NOT NULL CHECK (severity IN ('warn', 'block')),
  verdict VARCHAR NOT NULL CHECK (verdict IN ('pass', 'warn', 'fail', 'overridden', 'skipped')),
  message VARCHAR
);

CREATE TABLE movies (
  movie_id $movie_id NOT NULL,
  title VARCHAR,
  genres VARCHAR[],
  "year" SMALLINT,
  release_date DATE,
  available BOOLEAN NOT NULL,
  n_ratings BIGINT NOT NULL
);

CREATE TABLE recommendations (
  as_of_date DATE NOT NULL,
  user_id $user_id NOT NULL,
  rank SMALLINT NOT NULL,
  movie_id $movie_id NOT NULL,
  score FLOAT NOT NULL,
  predicted_rating FLOAT NOT NULL,
  source VARCHAR NOT NULL,
  reason VARCHAR,
  run_id published_run NOT NULL
);

CREATE TABLE user_status (
  as_of_date DATE NOT NULL,
  user_id $user_id NOT NULL,
  segment VARCHAR NOT NULL,
  n_ratings INTEGER NOT NULL,
  n_recommendations SMALLINT NOT NULL,
  short_reason VARCHAR,
  run_id published_run NOT NULL
);

CREATE TABLE similar_movies (
  as_of_date DATE NOT NULL,
  movie_id $movie_id NOT NULL,
  rank SMALLINT NOT NULL,
  similar_movie_id $movie_id NOT NULL,
  similarity FLOAT NOT NULL,
  run_id published_run NOT NULL
);

CREATE TABLE attached_files (
  run_id VARCHAR NOT NULL,
  table_name VARCHAR NOT NULL,
  path VARCHAR NOT NULL,
  sha256 VARCHAR NOT NULL,
  bytes BIGINT NOT NULL
);

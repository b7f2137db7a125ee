-- For the audit: one number for the list and the movie of each row of a date. As `rank_gaps` holds, rowid - rank is one number a
-- list. Where two keys are equal a movie may stand in a list twice (1 in 10^9 pairs is chance); where none are, none does.
SELECT (rowid - rank) * 1073741824 + (hash(movie_id) & 1073741823)::BIGINT AS key FROM recommendations WHERE as_of_date = ?

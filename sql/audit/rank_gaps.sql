-- Lists stand one after the other, by date and user, and their ranks are 1..k without gaps or repeats. As the rows follow each
-- other in the table (OVER () keeps their order): one look at neighbours proves it, and that no list is in two pieces.
SELECT as_of_date, user_id FROM (
  SELECT as_of_date, user_id, rank,
         lag(as_of_date) OVER () AS date_before, lag(user_id) OVER () AS user_before, lag(rank) OVER () AS rank_before
  FROM recommendations
)
WHERE CASE WHEN as_of_date = date_before AND user_id = user_before THEN rank <> rank_before + 1
           ELSE rank <> 1 OR as_of_date < date_before OR (as_of_date = date_before AND user_id < user_before) END

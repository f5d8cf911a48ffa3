-- A materialized view over another: its results, revisions and all, are rows again.
CREATE MATERIALIZED VIEW per_user WITH (lateness = '1 minute') AS
SELECT window_start, window_end, "user", count(*) AS n, sum(amount) AS amount
FROM tumble(e, ts, INTERVAL '10 seconds')
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW per_window AS
SELECT window_start, window_end, count(*) AS users, sum(n) AS n, max(amount) AS most
FROM per_user
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW ever AS
SELECT "user", sum(n) AS n, count(*) AS windows, min(amount) AS least FROM per_user GROUP BY "user";

CREATE MATERIALIZED VIEW busy AS
SELECT window_start, "user", n FROM per_user WHERE n > 1;

-- emit = 'changes' publishes a window before it closes; the table ends the same.
CREATE MATERIALIZED VIEW early WITH (emit = 'changes') AS
SELECT window_start, "user", count(*) AS n, sum(amount) AS amount
FROM tumble(e, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW early_sessions WITH (emit = 'changes', lateness = '10 seconds') AS
SELECT window_start, window_end, "user", count(*) AS n
FROM session(e, ts, INTERVAL '10 seconds', "user")
GROUP BY window_start, window_end, "user";

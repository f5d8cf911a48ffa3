-- Tumbling windows, with and without an offset; times before 1970 fall into the window that holds them.
CREATE MATERIALIZED VIEW by_user AS
SELECT window_start, window_end, "user", count(*) AS n, sum(amount) AS amount
FROM tumble(e, ts, INTERVAL '10 seconds')
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW shifted AS
SELECT window_start, count(*) AS n
FROM tumble(e, ts, INTERVAL '10 seconds', INTERVAL '3 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW whole AS
SELECT window_start, window_end, count(*) AS n, min(ts) AS first, max(ts) AS last
FROM tumble(e, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;

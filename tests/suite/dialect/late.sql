-- Lateness belongs to the output: what one refuses, another still takes, and repairs its result.
CREATE MATERIALIZED VIEW strict AS
SELECT window_start, "user", count(*) AS n
FROM tumble(e, ts, INTERVAL '10 seconds')
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW patient WITH (lateness = '25 seconds') AS
SELECT window_start, "user", count(*) AS n
FROM tumble(e, ts, INTERVAL '10 seconds')
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW forgiving WITH (lateness = '1 hour') AS
SELECT window_start, "user", count(*) AS n
FROM tumble(e, ts, INTERVAL '10 seconds')
GROUP BY window_start, window_end, "user";

-- A row that a condition removes is filtered, never late, wherever the condition stands.
CREATE MATERIALIZED VIEW filtered AS
SELECT window_start, count(*) AS n
FROM tumble(e, ts, INTERVAL '10 seconds')
WHERE "user" <> 'ann'
GROUP BY window_start, window_end;

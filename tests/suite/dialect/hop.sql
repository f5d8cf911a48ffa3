-- Hopping windows of any ratio: overlapping, uneven, and with holes between them.
CREATE MATERIALIZED VIEW overlapping AS
SELECT window_start, window_end, "user", count(*) AS n, sum(qty) AS qty, max(score) AS best
FROM hop(e, ts, INTERVAL '5 seconds', INTERVAL '20 seconds')
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW uneven AS
SELECT window_start, window_end, kind, count(*) AS n, count(DISTINCT "user") AS users
FROM hop(e, ts, INTERVAL '4 seconds', INTERVAL '10 seconds')
GROUP BY window_start, window_end, kind;

CREATE MATERIALIZED VIEW with_holes WITH (lateness = '30 seconds') AS
SELECT window_start, window_end, count(*) AS n
FROM hop(e, ts, INTERVAL '10 seconds', INTERVAL '4 seconds')
GROUP BY window_start, window_end;

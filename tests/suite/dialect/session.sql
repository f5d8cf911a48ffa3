-- Sessions: a row joins one that it is at most the gap away from, and bridges two.
CREATE MATERIALIZED VIEW visits AS
SELECT window_start, window_end, "user", count(*) AS n, sum(amount) AS amount
FROM session(e, ts, INTERVAL '10 seconds', "user")
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW busy WITH (lateness = '20 seconds') AS
SELECT window_start, window_end, count(*) AS n, count(DISTINCT "user") AS users
FROM session(e, ts, INTERVAL '3 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW longer AS
SELECT window_start, window_end, "user", kind, count(*) AS n
FROM session(e, ts, INTERVAL '15 seconds', "user", kind)
WHERE qty > 0
GROUP BY window_start, window_end, "user", kind
HAVING count(*) > 1;

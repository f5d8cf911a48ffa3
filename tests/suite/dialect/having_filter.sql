-- WHERE, FILTER and HAVING: rows that count, rows that one aggregate counts, results that are kept.
CREATE MATERIALIZED VIEW sold AS
SELECT window_start, "user",
       count(*) AS n,
       count(*) FILTER (WHERE kind = 'sell') AS sold,
       sum(amount) FILTER (WHERE ok) AS fine,
       count(DISTINCT kind) FILTER (WHERE qty > 1) AS kinds
FROM tumble(e, ts, INTERVAL '30 seconds')
WHERE kind <> 'hold'
GROUP BY window_start, window_end, "user"
HAVING count(*) >= 2 AND sum(qty) > 2;

CREATE MATERIALIZED VIEW often AS
SELECT "user", count(*) AS n FROM e GROUP BY "user" HAVING count(*) BETWEEN 3 AND 6;

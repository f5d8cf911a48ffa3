-- Top-k of windowed results, of running results, and of rows; ties go by the rows' places.
CREATE MATERIALIZED VIEW best AS
SELECT window_start, place, "user", n
FROM (
    SELECT window_start, window_end, "user", n,
           ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, "user") AS place
    FROM (SELECT window_start, window_end, "user", count(*) AS n FROM hop(e, ts, INTERVAL '10 seconds', INTERVAL '20 seconds')
          GROUP BY window_start, window_end, "user") AS counted
) AS ranked
WHERE place <= 2;

CREATE MATERIALIZED VIEW richest AS
SELECT place, "user", amount
FROM (
    SELECT "user", amount, ROW_NUMBER() OVER (ORDER BY amount DESC NULLS LAST, "user") AS place
    FROM (SELECT "user", sum(amount) AS amount FROM e GROUP BY "user") AS summed
) AS ranked
WHERE place <= 3;

CREATE MATERIALIZED VIEW largest AS
SELECT kind, place, id, qty
FROM (SELECT id, kind, qty, ROW_NUMBER() OVER (PARTITION BY kind ORDER BY qty DESC) AS place FROM e) AS ranked
WHERE place <= 3;

-- Joins bounded in time: pairs within a span of time around each row, in every form. What is late on either side is set aside.
CREATE TABLE sales (
    "user" VARCHAR NOT NULL,
    id BIGINT NOT NULL,
    ts TIMESTAMP NOT NULL,
    kind VARCHAR,
    qty INT NOT NULL,
    amount DECIMAL(8, 2),
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'file', path = 'EVENTS', format = 'json');

-- Pairs; a condition on one side filters before that side is judged, one on both is asked of each pair.
CREATE MATERIALIZED VIEW pairs AS
SELECT e.id, s.id AS sale, e.ts, s.ts AS sold
FROM e JOIN sales s ON e."user" = s."user" AND s.ts BETWEEN e.ts - INTERVAL '4 seconds' AND e.ts + INTERVAL '10 seconds' AND e.qty <> s.qty
WHERE e.kind = 'buy';

-- The bounds in WHERE, without an equality, as a difference of times, half open.
CREATE MATERIALIZED VIEW near AS
SELECT e.id, s.id AS sale FROM e, sales s WHERE s.ts - e.ts > INTERVAL '0 seconds' AND e.ts + INTERVAL '2 seconds' >= s.ts;

-- Rows of the left side without a match stay, with NULLs, once none in time can come.
CREATE MATERIALIZED VIEW lefts WITH (lateness = '20 seconds') AS
SELECT e.id, e.ts, s.id AS sale
FROM e LEFT JOIN sales s ON e."user" = s."user" AND s.kind = 'sell' AND s.ts >= e.ts AND s.ts < e.ts + INTERVAL '5 seconds';

CREATE MATERIALIZED VIEW rights AS
SELECT e.id, s.id AS sale, s.ts
FROM e RIGHT JOIN sales s ON e."user" = s."user" AND e.qty > s.qty AND e.ts BETWEEN s.ts AND s.ts + INTERVAL '5 seconds';

CREATE MATERIALIZED VIEW fulls AS
SELECT e.id, s.id AS sale
FROM (SELECT * FROM e WHERE kind = 'buy') e
FULL JOIN (SELECT * FROM sales WHERE kind = 'sell') s ON e."user" = s."user" AND e.ts BETWEEN s.ts - INTERVAL '3 seconds' AND s.ts;

-- Rows with a match, once; rows without.
CREATE MATERIALIZED VIEW matched AS
SELECT e.id, e.ts FROM e LEFT SEMI JOIN sales s ON e."user" = s."user" AND s.ts > e.ts AND s.ts <= e.ts + INTERVAL '10 seconds';

CREATE MATERIALIZED VIEW unmatched AS
SELECT e.id, e.ts FROM e LEFT ANTI JOIN sales s ON e."user" = s."user" AND s.ts > e.ts AND s.ts <= e.ts + INTERVAL '10 seconds';

-- A chain of three, a stream with itself, and windows over what was joined.
CREATE MATERIALIZED VIEW chains AS
SELECT e.id, s.id AS sale, t.id AS third
FROM e
JOIN sales s ON e."user" = s."user" AND s.ts BETWEEN e.ts AND e.ts + INTERVAL '5 seconds'
LEFT JOIN sales t ON s.kind = t.kind AND t.ts BETWEEN s.ts - INTERVAL '2 seconds' AND s.ts + INTERVAL '1 second' AND t.id <> s.id;

CREATE MATERIALIZED VIEW followers AS
SELECT x.id, y.id AS next
FROM e x JOIN e y ON x."user" = y."user" AND y.ts > x.ts AND y.ts <= x.ts + INTERVAL '8 seconds';

CREATE VIEW joined AS
SELECT e.id, e.ts, e.kind, s.qty
FROM e LEFT JOIN sales s ON e."user" = s."user" AND s.ts BETWEEN e.ts AND e.ts + INTERVAL '10 seconds';

CREATE MATERIALIZED VIEW counted AS
SELECT window_start, kind, count(*) AS pairs, count(qty) AS matched, sum(qty) AS qty
FROM tumble(joined, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end, kind;

CREATE MATERIALIZED VIEW firsts AS
SELECT id, sale FROM (
    SELECT e.id, s.id AS sale, row_number() OVER (PARTITION BY e.id ORDER BY s.ts) AS place
    FROM e JOIN sales s ON e."user" = s."user" AND s.ts BETWEEN e.ts AND e.ts + INTERVAL '10 seconds'
) WHERE place <= 2;

-- EXISTS in WHERE is a join too.
CREATE MATERIALIZED VIEW asked AS
SELECT id FROM e
WHERE kind = 'buy'
  AND EXISTS (SELECT 1 FROM sales s WHERE s."user" = e."user" AND s.qty > e.qty AND s.ts BETWEEN e.ts - INTERVAL '9 seconds' AND e.ts + INTERVAL '9 seconds')
  AND NOT EXISTS (SELECT 1 FROM sales s WHERE s."user" = e."user" AND s.id <> e.id AND s.ts = e.ts);

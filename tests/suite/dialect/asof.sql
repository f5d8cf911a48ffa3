-- ASOF JOIN: each row with the value of another stream as of its time.
CREATE TABLE people (
    "user" VARCHAR NOT NULL,
    id BIGINT NOT NULL,
    ts TIMESTAMP NOT NULL,
    qty INT NOT NULL,
    meta STRUCT<city VARCHAR>,
    PRIMARY KEY ("user"),
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'file', path = 'EVENTS', format = 'json');

CREATE TABLE sales (
    "user" VARCHAR NOT NULL,
    id BIGINT NOT NULL,
    ts TIMESTAMP NOT NULL,
    kind VARCHAR,
    qty INT NOT NULL,
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'file', path = 'EVENTS', format = 'json');

-- A changelog: the version of the user as of the event. What is late on either side is set aside.
CREATE MATERIALIZED VIEW versions AS
SELECT e.id, e.ts, p.id AS version, p.qty
FROM e ASOF JOIN people p MATCH_CONDITION (e.ts >= p.ts) ON e."user" = p."user";

-- The same, strictly before, with more patience; a condition on the left side's columns filters before it is judged.
CREATE MATERIALIZED VIEW before WITH (lateness = '25 seconds') AS
SELECT e.id, p.id AS version
FROM e ASOF JOIN people p MATCH_CONDITION (p.ts < e.ts) ON p."user" = e."user"
WHERE e.kind = 'buy' AND (p.qty IS NULL OR p.qty > 0);

-- A version that a view's condition removes ends the value before it.
CREATE VIEW busy AS SELECT "user", id AS busy_id, ts AS since, upper(meta['city']) AS city FROM people WHERE qty > 1;
CREATE MATERIALIZED VIEW while_busy AS
SELECT e.id, b.busy_id, b.city FROM e ASOF JOIN busy b MATCH_CONDITION (e.ts >= b.since) ON e."user" = b."user";

-- A plain stream: the latest row at or before, of equal times the one of the greater place.
CREATE MATERIALIZED VIEW last_sale AS
SELECT e.id, s.id AS sale, s.qty
FROM e ASOF JOIN (SELECT * FROM sales WHERE kind = 'sell') AS s MATCH_CONDITION (e.ts >= s.ts) ON e."user" = s."user";

-- A stream with itself: the row before.
CREATE MATERIALIZED VIEW previous WITH (lateness = '1 hour') AS
SELECT x.id, y.id AS previous
FROM e AS x ASOF JOIN e AS y MATCH_CONDITION (x.ts > y.ts) ON x."user" = y."user" AND x.kind = y.kind;

-- A chain: the second join's key comes from the first.
CREATE VIEW chained AS
SELECT e.id, e.ts, e."user", e.qty, p.id AS version, s.id AS sale
FROM e
ASOF JOIN people AS p MATCH_CONDITION (e.ts >= p.ts) ON e."user" = p."user"
ASOF JOIN sales AS s MATCH_CONDITION (e.ts > s.ts) ON p.qty = s.qty;
CREATE MATERIALIZED VIEW chain WITH (lateness = '1 hour') AS SELECT * FROM chained;

-- Windows, groups and ranks over the result; ties are broken by the left side's place.
CREATE MATERIALIZED VIEW windows WITH (lateness = '10 seconds') AS
SELECT window_start, count(*) AS n, count(version) AS versions, max(sale) AS sale
FROM tumble(chained, ts, INTERVAL '20 seconds') GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW first_rows WITH (lateness = '1 hour') AS
SELECT "user", place, id, version FROM (
    SELECT *, ROW_NUMBER() OVER (PARTITION BY "user" ORDER BY qty DESC) AS place FROM chained
) AS ranked WHERE place <= 2;

-- A view of a view of it.
CREATE MATERIALIZED VIEW by_version AS SELECT version, count(*) AS n FROM versions GROUP BY version;

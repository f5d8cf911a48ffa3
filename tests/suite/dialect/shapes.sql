-- QUALIFY, CTEs, nested sub-queries and views, windows over windows, CASE, structs and lists in results.
CREATE VIEW priced AS SELECT id, ts, "user", kind, qty, coalesce(amount, 0) AS amount, meta FROM e;
CREATE VIEW bought AS SELECT * FROM priced WHERE kind = 'buy';

CREATE MATERIALIZED VIEW qualified AS
SELECT "user", id, qty FROM bought QUALIFY ROW_NUMBER() OVER (PARTITION BY "user" ORDER BY qty DESC, id) <= 2;

CREATE MATERIALIZED VIEW qualified_in_windows AS
SELECT window_start, window_end, id, qty FROM tumble(priced, ts, INTERVAL '20 seconds')
QUALIFY ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY qty DESC) = 1;

CREATE MATERIALIZED VIEW with_cte AS
WITH sizes AS (SELECT kind, CASE WHEN qty > 2 THEN 'many' WHEN qty = 0 THEN 'none' ELSE 'few' END AS size, amount FROM priced),
     named AS (SELECT kind || ':' || size AS name, amount FROM sizes)
SELECT name, count(*) AS n, sum(amount) AS amount FROM named GROUP BY name;

CREATE MATERIALIZED VIEW nested AS
SELECT most, count(*) AS kinds FROM (
    SELECT kind, max(n) AS most FROM (SELECT kind, "user", count(*) AS n FROM priced GROUP BY kind, "user") AS counted GROUP BY kind
) AS greatest GROUP BY most;

-- Over results that are revised: each record may move a user from one place to another.
CREATE MATERIALIZED VIEW ranked AS
SELECT place, "user", n FROM (
    SELECT "user", n, ROW_NUMBER() OVER (ORDER BY n DESC, "user") AS place
    FROM (SELECT "user", count(*) AS n FROM priced GROUP BY "user") AS counted
) AS numbered WHERE place <= 3;

CREATE MATERIALIZED VIEW tens WITH (lateness = '100 days') AS
SELECT window_start, window_end, kind, count(*) AS n FROM tumble(priced, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, kind;

CREATE MATERIALIZED VIEW minutes WITH (lateness = '100 days') AS
SELECT window_start, count(*) AS tens, sum(n) AS n, max(n) AS most
FROM tumble((SELECT window_end AS at, n FROM tens), at, INTERVAL '1 minute')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW built AS
SELECT id, struct(qty, kind) AS pair, make_array(qty, 1) AS numbers, meta['tags'][1] AS first_tag, array_length(meta['tags']) AS tags,
       CASE kind WHEN 'buy' THEN qty ELSE -qty END AS signed
FROM bought;

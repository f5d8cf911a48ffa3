-- Several groupings in one GROUP BY: a row counts once in every set; a NULL of a set is not a NULL of the data.
CREATE MATERIALIZED VIEW rolled AS
SELECT kind, ok, grouping(kind) AS all_kinds, grouping(ok) AS all_ok, count(*) AS n, sum(qty) AS qty FROM e GROUP BY ROLLUP (kind, ok);

CREATE MATERIALIZED VIEW cubed AS
SELECT "user", kind, count(*) AS n, array_agg(id) AS ids FROM e WHERE qty < 5 GROUP BY CUBE ("user", kind);

CREATE MATERIALIZED VIEW windowed AS
SELECT window_start, kind, count(*) AS n, max(qty) AS most
FROM tumble(e, ts, INTERVAL '20 seconds')
GROUP BY GROUPING SETS ((window_start, window_end, kind), (window_start, window_end));

-- UNION ALL: a row may come through both branches.
CREATE VIEW labelled AS
SELECT ts, 'small' AS size, qty FROM e WHERE qty <= 3
UNION ALL
SELECT ts, 'large' AS size, qty FROM e WHERE qty >= 3;

CREATE MATERIALIZED VIEW sizes AS
SELECT window_start, size, count(*) AS n, sum(qty) AS qty
FROM tumble(labelled, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end, size;

CREATE MATERIALIZED VIEW always AS
SELECT size, count(*) AS n FROM labelled GROUP BY size;

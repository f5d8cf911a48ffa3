-- DISTINCT, over all time and in windows.
CREATE MATERIALIZED VIEW kinds AS
SELECT DISTINCT kind, ok FROM e;

CREATE MATERIALIZED VIEW seen AS
SELECT window_start, count(DISTINCT "user") AS users, count(DISTINCT qty) AS quantities, sum(DISTINCT qty) AS qty
FROM tumble(e, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW places AS
SELECT DISTINCT window_start, meta['city'] AS city
FROM tumble(e, ts, INTERVAL '20 seconds');

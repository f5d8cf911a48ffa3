-- A record on which an expression fails is dead to that output alone.
CREATE MATERIALIZED VIEW divided AS
SELECT id, 10 / qty AS share FROM e;

CREATE MATERIALIZED VIEW not_divided AS
SELECT id, qty FROM e WHERE qty = 0;

CREATE MATERIALIZED VIEW narrowed AS
SELECT window_start, count(*) AS n, sum(CAST(amount * 300 AS SMALLINT)) AS scaled
FROM tumble(e, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end;

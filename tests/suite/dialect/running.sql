-- Without windows results run on for ever, and nothing is late.
CREATE MATERIALIZED VIEW by_user AS
SELECT "user", count(*) AS n, sum(amount) AS amount, max(ts) AS last FROM e GROUP BY "user";

CREATE MATERIALIZED VIEW total AS
SELECT count(*) AS n, sum(qty) AS qty, avg(score) AS score FROM e;

CREATE MATERIALIZED VIEW by_expression AS
SELECT upper(kind) AS kind, qty % 2 = 0 AS even, count(*) AS n FROM e GROUP BY upper(kind), qty % 2 = 0;

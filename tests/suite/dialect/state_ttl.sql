-- state_ttl: without windows, over the latest run of each key's rows at most that far apart, in event time.
CREATE MATERIALIZED VIEW runs WITH (state_ttl = '10 seconds') AS
SELECT "user", count(*) AS n, sum(qty) AS qty, min(ts) AS began, max(ts) AS ended, array_agg(id) AS ids, stddev(score) AS stddev
FROM e
GROUP BY "user";

CREATE MATERIALIZED VIEW computed WITH (state_ttl = '5 seconds', lateness = '10 seconds') AS
SELECT upper(kind) AS kind, count(*) AS n, last_value(id) AS last FROM e WHERE qty < 9 GROUP BY upper(kind);

CREATE MATERIALIZED VIEW everything WITH (state_ttl = '10 seconds') AS SELECT count(*) AS n, max(id) AS last FROM e;

CREATE MATERIALIZED VIEW different WITH (state_ttl = '10 seconds') AS SELECT DISTINCT kind, "user" FROM e;

CREATE MATERIALIZED VIEW first_of_run WITH (state_ttl = '10 seconds') AS
SELECT "user", id, ts, qty FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY "user" ORDER BY ts) AS n FROM e) AS numbered WHERE n = 1;

CREATE MATERIALIZED VIEW most_of_run WITH (state_ttl = '1 minute') AS
SELECT kind, id, meta FROM e QUALIFY ROW_NUMBER() OVER (PARTITION BY kind ORDER BY qty DESC) = 1;

-- Every aggregate, in windows and running.
CREATE VIEW judged AS SELECT * FROM e WHERE score IS NULL OR score < 1000000;

CREATE MATERIALIZED VIEW windowed AS
SELECT window_start,
       count(*) AS n, count(amount) AS amounts, count(DISTINCT kind) AS kinds,
       sum(amount) AS amount, sum(qty) AS qty, sum(score) AS score,
       min(amount) AS least, max(amount) AS most, min("user") AS first, max("user") AS last, min(ts) AS early, max(ts) AS late, max(ok) AS any_ok,
       avg(amount) AS mean_amount, avg(qty) AS mean_qty, mean(score) AS mean_score,
       var_samp(score) AS var_samp, var(qty) AS var, var_pop(score) AS var_pop,
       stddev(score) AS stddev, stddev_samp(qty) AS stddev_samp, stddev_pop(score) AS stddev_pop,
       approx_distinct("user") AS users, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY qty) AS median_qty,
       bool_and(ok) AS all_ok, bool_or(ok) AS some_ok
FROM tumble(judged, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW running AS
SELECT kind,
       count(*) AS n, sum(amount) AS amount, sum(score) AS score, min(score) AS least, max(score) AS most,
       avg(amount) AS mean_amount, avg(score) AS mean_score, var_pop(qty) AS var_pop, stddev(score) AS stddev,
       approx_distinct("user") AS users, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY score) AS p90, bool_or(ok) AS some_ok
FROM judged
GROUP BY kind;

-- Aggregates of two arguments, of bits, medians and exact percentiles: in windows, running, in hops, in sessions, over results that are revised.
CREATE MATERIALIZED VIEW windowed AS
SELECT window_start,
       corr(qty, score) AS corr, covar_pop(qty, score) AS covar_pop, covar_samp(qty, score) AS covar_samp, covar(score, qty) AS covar,
       regr_slope(score, qty) AS slope, regr_intercept(score, qty) AS intercept, regr_r2(score, qty) AS r2, regr_count(score, qty) AS pairs,
       regr_avgx(score, qty) AS avgx, regr_avgy(score, qty) AS avgy,
       regr_sxx(score, qty) AS sxx, regr_syy(score, qty) AS syy, regr_sxy(score, qty) AS sxy,
       bit_and(qty) AS bits_and, bit_or(id) AS bits_or, bit_xor(id) AS bits_xor, bit_xor(DISTINCT qty) AS bits_of_different,
       median(qty) AS median_quantity, median(amount) AS median_amount, median(score) AS median_score, median(DISTINCT qty) AS median_of_different,
       percentile_cont(0.25) WITHIN GROUP (ORDER BY score) AS first_quartile, quantile_cont(qty, 0.9) AS ninth,
       percentile_cont(0.25) WITHIN GROUP (ORDER BY score DESC) AS third_quartile,
       median(qty) FILTER (WHERE ok) AS median_ok
FROM tumble(e, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW of_different AS
SELECT kind, stddev(DISTINCT qty) AS spread, var_pop(DISTINCT score) AS var_pop, corr(DISTINCT qty, id) AS corr, bit_xor(DISTINCT qty) AS bits,
       count(DISTINCT struct(qty, ok)) AS pairs
FROM e
GROUP BY kind;

CREATE MATERIALIZED VIEW running AS
SELECT kind, corr(qty, score) AS corr, regr_slope(score, qty) AS slope, bit_or(qty) AS bits_or, bit_xor(id) AS bits_xor, median(amount) AS median_amount,
       approx_median(qty) AS median_qty
FROM e
GROUP BY kind;

CREATE MATERIALIZED VIEW hops AS
SELECT window_start, kind, covar_samp(qty, score) AS covar, bit_and(qty) AS bits_and, median(score) AS median_score
FROM hop(e, ts, INTERVAL '10 seconds', INTERVAL '30 seconds')
GROUP BY window_start, window_end, kind;

CREATE MATERIALIZED VIEW visits AS
SELECT window_start, "user", regr_sxy(qty, score) AS sxy, bit_or(qty) AS bits_or, median(qty) AS median_quantity
FROM session(e, ts, INTERVAL '10 seconds', "user")
GROUP BY window_start, window_end, "user";

-- Each record revises a count of `counts`.
CREATE MATERIALIZED VIEW counts AS
SELECT kind, "user", count(*) AS n, sum(qty) AS qty FROM e GROUP BY kind, "user";

CREATE MATERIALIZED VIEW of_counts AS
SELECT kind, corr(n, qty) AS corr, regr_slope(n, qty) AS slope, bit_and(n) AS bits_and, bit_or(n) AS bits_or, bit_xor(n) AS bits_xor,
       median(n) AS median_count, percentile_cont(0.75) WITHIN GROUP (ORDER BY n) AS third_quartile
FROM counts
GROUP BY kind;

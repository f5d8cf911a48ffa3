-- A row for each element of a list: kept as it is, grouped, in windows.
CREATE MATERIALIZED VIEW tags AS SELECT id, unnest(meta['tags']) AS tag FROM e;

CREATE MATERIALIZED VIEW counted AS
SELECT tag, count(*) AS n, array_agg(id) AS ids FROM (SELECT id, ts, unnest(meta['tags']) AS tag FROM e) AS tagged GROUP BY tag;

CREATE MATERIALIZED VIEW windowed AS
SELECT window_start, number, count(*) AS n, array_agg(id) AS ids
FROM tumble((SELECT id, ts, unnest(make_array(qty, qty + 1)) AS number FROM e WHERE kind = 'buy'), ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end, number;

CREATE MATERIALIZED VIEW pairs AS
SELECT id, unnest(make_array(id, 0, qty)) AS number, unnest(meta['tags']) AS tag FROM e WHERE qty > 0;

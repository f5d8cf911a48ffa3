-- Joins on equal windows: of rows that carry their windows, and of what windows have made.
CREATE MATERIALIZED VIEW bought AS
SELECT window_start, window_end, "user", count(*) AS n FROM tumble(e, ts, INTERVAL '10 seconds') WHERE kind = 'buy'
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW sold WITH (lateness = '10 seconds') AS
SELECT window_start, window_end, "user", sum(amount) AS amount FROM tumble(e, ts, INTERVAL '10 seconds') WHERE kind = 'sell'
GROUP BY window_start, window_end, "user";

-- A revised result revises what it is joined with.
CREATE MATERIALIZED VIEW both AS
SELECT b.window_start, b.window_end, b."user", b.n, s.amount
FROM bought b JOIN sold s ON b.window_start = s.window_start AND b.window_end = s.window_end AND b."user" = s."user";

CREATE MATERIALIZED VIEW either AS
SELECT b.window_end AS bought_until, s.window_end AS sold_until, coalesce(b."user", s."user") AS "user", b.n, s.amount
FROM bought b FULL JOIN sold s ON b.window_start = s.window_start AND b.window_end = s.window_end AND b."user" = s."user";

CREATE MATERIALIZED VIEW only_bought AS
SELECT b.window_start, b."user", b.n
FROM bought b LEFT ANTI JOIN sold s ON b.window_end = s.window_end AND b."user" = s."user";

-- Results with the windows before them.
CREATE MATERIALIZED VIEW rising AS
SELECT b.window_end, b."user", b.n, a.n AS before
FROM bought b JOIN bought a ON b."user" = a."user" AND a.window_end = b.window_end - INTERVAL '10 seconds';

-- Rows that carry their windows, with USING; a record may be in several.
CREATE MATERIALIZED VIEW together AS
SELECT window_end, x.id, y.id AS other
FROM hop(e, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') x
JOIN hop(e, ts, INTERVAL '5 seconds', INTERVAL '10 seconds') y USING (window_start, window_end, kind)
WHERE x.id < y.id AND x.qty > 2;

-- Rows that carry their window, by their own time: they are judged by their window alone.
CREATE MATERIALIZED VIEW soon AS
SELECT x.window_start, x.id, y.id AS next
FROM tumble(e, ts, INTERVAL '10 seconds') x
LEFT JOIN e y ON x."user" = y."user" AND y.ts > x.ts AND y.ts <= x.ts + INTERVAL '3 seconds';

-- A stream with results, and windows over joined results.
CREATE MATERIALIZED VIEW shares AS
SELECT e.id, e.ts, b.window_start, b.window_end, b."user", b.n
FROM e JOIN bought b ON e."user" = b."user" AND e.ts >= b.window_end - INTERVAL '10 seconds' AND e.ts < b.window_end;

CREATE MATERIALIZED VIEW totals AS
SELECT b.window_start, b.window_end, sum(b.n) AS n, sum(s.amount) AS amount
FROM bought b JOIN sold s ON b.window_start = s.window_start AND b.window_end = s.window_end AND b."user" = s."user"
GROUP BY b.window_start, b.window_end;

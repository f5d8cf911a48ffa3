-- The first and the last row of a key; equal times go by the rows' places.
CREATE MATERIALIZED VIEW firsts AS
SELECT "user", id, ts
FROM (SELECT id, "user", ts, ROW_NUMBER() OVER (PARTITION BY "user" ORDER BY ts) AS place FROM e) AS ranked
WHERE place = 1;

CREATE MATERIALIZED VIEW lasts AS
SELECT "user", id, ts, amount
FROM (SELECT id, "user", ts, amount, ROW_NUMBER() OVER (PARTITION BY "user" ORDER BY ts DESC) AS place FROM e) AS ranked
WHERE place = 1;

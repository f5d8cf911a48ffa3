-- Aggregates that depend on an order: by their ORDER BY, then event time, then (partition, offset); of derived rows by their key.
CREATE MATERIALIZED VIEW windowed AS
SELECT window_start,
       array_agg(id) AS ids, array_agg(id ORDER BY qty DESC) AS by_quantity, array_agg(kind ORDER BY amount NULLS FIRST, id DESC) AS kinds,
       array_agg(DISTINCT kind) AS different, array_agg(DISTINCT qty ORDER BY qty DESC) AS quantities, array_agg(score) AS scores,
       string_agg("user", ', ') AS users, string_agg(kind, '' ORDER BY "user", id) AS joined, string_agg(DISTINCT kind, '+') AS different_kinds,
       first_value(id) AS first, last_value(id) AS last, first_value(id ORDER BY amount DESC NULLS LAST) AS dearest,
       last_value(kind ORDER BY score NULLS FIRST) AS best_kind, nth_value(id, 2) AS second, nth_value(id, 3 ORDER BY qty) AS third,
       nth_value(id, 99) AS none, any_value(score) AS some_score,
       first_value(score) IGNORE NULLS AS first_score, array_agg(score ORDER BY id) IGNORE NULLS AS known_scores,
       array_agg(id) FILTER (WHERE ok) AS ok_ids, string_agg("user", ',') FILTER (WHERE qty > 99) AS nobody
FROM tumble(e, ts, INTERVAL '20 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW running AS
SELECT kind, array_agg(id) AS ids, last_value(qty) AS last_quantity, first_value("user" ORDER BY qty DESC) AS most_from,
       string_agg("user", ' ' ORDER BY "user") AS users, array_agg(meta) FILTER (WHERE meta IS NOT NULL) AS metas
FROM e
GROUP BY kind;

CREATE MATERIALIZED VIEW hops AS
SELECT window_start, first_value(id) AS first, last_value(id ORDER BY qty) AS most, array_agg(id ORDER BY id) AS ids
FROM hop(e, ts, INTERVAL '10 seconds', INTERVAL '30 seconds')
GROUP BY window_start, window_end;

CREATE MATERIALIZED VIEW visits AS
SELECT window_start, "user", array_agg(kind) AS steps, first_value(kind) AS began, last_value(kind) AS ended, string_agg(kind, '>') AS path
FROM session(e, ts, INTERVAL '10 seconds', "user")
GROUP BY window_start, window_end, "user";

CREATE MATERIALIZED VIEW everything AS
SELECT count(*) AS n, first_value(id) AS first, last_value(id) AS last, array_agg(DISTINCT kind) AS kinds FROM e;

-- Each record revises a count of `counts`.
CREATE MATERIALIZED VIEW counts AS
SELECT kind, "user", count(*) AS n FROM e GROUP BY kind, "user";

CREATE MATERIALIZED VIEW of_counts AS
SELECT kind, array_agg(n) AS counts, array_agg("user" ORDER BY n DESC) AS by_count, string_agg("user", ',') AS users,
       first_value(n) AS first, last_value(n) AS last, nth_value("user", 2) AS second, array_agg(DISTINCT n) AS different
FROM counts
GROUP BY kind;

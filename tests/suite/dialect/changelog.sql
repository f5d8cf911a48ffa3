-- A changelog: the records of one user replace each other, in one partition by offset, across partitions by time.
CREATE TABLE people (
    "user" VARCHAR NOT NULL,
    id BIGINT NOT NULL,
    ts TIMESTAMP NOT NULL,
    kind VARCHAR,
    qty INT NOT NULL,
    amount DECIMAL(8, 2),
    meta STRUCT<city VARCHAR>,
    PRIMARY KEY ("user"),
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'file', path = 'EVENTS', format = 'json');

CREATE MATERIALIZED VIEW everybody AS SELECT * FROM people;

-- The key is not selected: it is kept hidden. Who does not pass any more is gone.
CREATE MATERIALIZED VIEW cities AS
SELECT id, meta['city'] AS city FROM people WHERE qty > 1;

-- Groups that all have left are gone too; min and max know the values below them.
CREATE MATERIALIZED VIEW kinds AS
SELECT kind, count(*) AS n, sum(qty) AS qty, min(amount) AS least, max(amount) AS most, count(DISTINCT meta['city']) AS cities
FROM people GROUP BY kind;

CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(qty) AS qty FROM people;

CREATE MATERIALIZED VIEW most AS
SELECT place, "user", qty FROM (
    SELECT "user", qty, ROW_NUMBER() OVER (ORDER BY qty DESC, "user") AS place FROM people
) AS ranked WHERE place <= 3;

CREATE MATERIALIZED VIEW some_kinds AS SELECT DISTINCT kind FROM people;

-- A stream and a changelog in one.
CREATE MATERIALIZED VIEW together AS
SELECT kind, count(*) AS n FROM (SELECT kind FROM e UNION ALL SELECT kind FROM people) AS both GROUP BY kind;

-- A record on which an expression fails is a dead letter; the row before it stays.
CREATE MATERIALIZED VIEW shares AS SELECT "user", 12 / qty AS share FROM people;

-- A view of a view of it.
CREATE MATERIALIZED VIEW by_city AS SELECT city, count(*) AS n FROM cities GROUP BY city;

-- The source of every example: two partitions, a delay of five seconds.
SET pipeline = 'd';
CREATE TABLE e (
    id BIGINT NOT NULL,
    ts TIMESTAMP NOT NULL,
    "user" VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    amount DECIMAL(8, 2),
    score DOUBLE,
    qty INT NOT NULL,
    ok BOOLEAN,
    meta STRUCT<city VARCHAR, tags VARCHAR[]>,
    url VARCHAR,
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'file', path = 'EVENTS', format = 'json');

-- URL shortener: alerts. A pipeline of its own beside `pipeline.sql`, over the same topic; its results go to a Kafka topic.
--
--   tidemill run pipelines/clicks/url_shortener/alerts.sql --brokers HOST:PORT
--
-- The topic `url.alerts` must be there. Each alert is in it exactly once for whoever reads it with `isolation.level=read_committed`, whatever
-- crashes in between: rows go out in one transaction an epoch.

SET pipeline = 'url_alerts';

CREATE TABLE clicks (
    ts         TIMESTAMP(3) NOT NULL,
    short_code VARCHAR NOT NULL,
    visitor_id VARCHAR NOT NULL,
    status     SMALLINT NOT NULL,
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'kafka', topic = 'url.clicks', format = 'json', max_future = '5 minutes');

-- Without a PRIMARY KEY a sink gets each result once, when nothing can revise it any more.
CREATE TABLE alerts (kind VARCHAR, short_code VARCHAR, since TIMESTAMP(3), clicks BIGINT, visitors BIGINT)
WITH (connector = 'kafka', topic = 'url.alerts', format = 'json');

-- A link that is clicked a lot by few looks like somebody counts it up.
INSERT INTO alerts
SELECT CASE WHEN count(DISTINCT visitor_id) * 5 < count(*) THEN 'inflated' ELSE 'viral' END, short_code, window_start, count(*), count(DISTINCT visitor_id)
FROM tumble(clicks, ts, INTERVAL '1 minute')
WHERE status = 302
GROUP BY window_start, window_end, short_code
HAVING count(*) > 200;

-- A visitor that asks for code after code that nobody was given.
INSERT INTO alerts (kind, since, clicks, visitors)
SELECT 'scan', window_start, count(*), count(DISTINCT visitor_id)
FROM tumble(clicks, ts, INTERVAL '1 minute')
WHERE status = 404
GROUP BY window_start, window_end
HAVING count(*) > 100;

-- URL shortener: what happens to short links, minute by minute.
--
--   tidemill demo url_shortener                                   an embedded broker, made-up clicks, the answers
--   tidemill run pipelines/clicks/url_shortener/pipeline.sql      the same over your own topic `url.clicks`
--   tidemill sql < pipelines/clicks/url_shortener/questions.sql   the questions, while it runs or after
--
-- The file reads from top to bottom: one source, a few views that give names to steps, and the output tables. A view keeps nothing; each
-- MATERIALIZED VIEW is a table that is kept exactly once and answers SQL while it is being written. The source is read once for all of them.

SET pipeline = 'url_shortener';

-- 1. The source -----------------------------------------------------------------------------------------------------------------------------

-- One JSON object a record. A record that is no JSON object, lacks a NOT NULL column or holds a value that does not fit its type goes to
-- `dead_letters` with its place, its bytes and the reason; the partition goes on. Fields that are not named here are ignored.
CREATE TABLE clicks (
    event_id    BIGINT NOT NULL,                    -- given by the edge site; a site that is not sure sends a click again with the same id
    ts          TIMESTAMP(3) NOT NULL,              -- when the visitor clicked: milliseconds since 1970, or text in RFC 3339
    short_code  VARCHAR NOT NULL,                   -- what was asked for, whether it exists or not
    visitor_id  VARCHAR NOT NULL,                   -- a cookie
    country     VARCHAR,                            -- of the address; two letters when known
    referrer    VARCHAR,                            -- the page that held the link; NULL when typed, scanned or hidden
    status      SMALLINT NOT NULL,                  -- 302 sent on, 404 no such link, 410 link expired
    pop         VARCHAR NOT NULL,                   -- the edge site
    redirect_us INT,                                -- microseconds until the answer was sent
    meta        STRUCT<ip VARCHAR, ua VARCHAR>,     -- address and user agent
    -- Event time is `ts`. Clicks come up to four seconds out of order, so the watermark trails the newest click by five: nothing in order
    -- is ever late, and a window closes five seconds after its end. Phones that were offline come hours behind; see `lateness` below.
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'kafka', topic = 'url.clicks', format = 'json', max_future = '5 minutes');   -- a clock that runs ahead moves nothing

-- 2. Named steps ----------------------------------------------------------------------------------------------------------------------------

-- `user_agent(text)` gives STRUCT<browser VARCHAR, os VARCHAR, device VARCHAR, bot BOOLEAN>, parsed once here.
CREATE VIEW parsed AS
SELECT *, user_agent(meta['ua']) AS agent FROM clicks;

-- Every request, cleaned: a country that is not two letters becomes NULL and the request stays; the referrer becomes a host
-- (`url_host(text)`: lower case, or NULL for what is no URL).
CREATE VIEW requests AS
SELECT event_id, ts, short_code, visitor_id, status, pop, redirect_us, meta['ip'] AS ip,
       CASE WHEN char_length(country) = 2 THEN upper(country) END AS country,
       CASE WHEN referrer IS NULL THEN 'direct' ELSE coalesce(url_host(referrer), 'unreadable') END AS referrer_host,
       coalesce(agent['device'], 'other') AS device,
       coalesce(agent['browser'], 'unknown') AS browser,
       coalesce(agent['os'], 'unknown') AS os,
       coalesce(agent['bot'], false) AS bot
FROM parsed;

-- A click is a request that was sent on to where the link points.
CREATE VIEW sent_on AS SELECT * FROM requests WHERE status = 302;
CREATE VIEW human_clicks AS SELECT * FROM sent_on WHERE NOT bot;
CREATE VIEW robot_clicks AS SELECT * FROM sent_on WHERE bot;

-- 3. Clicks by link -------------------------------------------------------------------------------------------------------------------------

-- Tumbling windows: each click falls into exactly one minute. `tumble` adds the columns `window_start` and `window_end`.
-- `clicks` counts every event id once however often it was sent; `deliveries` counts records. Both are exact, and so is `visitors`.
-- lateness: for ten minutes after a minute has ended a late click still repairs its row (readers simply see the new one; the table
-- "clicks_per_minute$log" shows both). A click later than that goes to `late_events` with the window it missed.
CREATE MATERIALIZED VIEW clicks_per_minute
WITH (lateness = '10 minutes') AS
SELECT window_start, window_end, short_code,
       count(DISTINCT event_id) AS clicks,
       count(DISTINCT visitor_id) AS visitors,
       count(DISTINCT event_id) FILTER (WHERE bot) AS robot_clicks,
       count(*) AS deliveries
FROM tumble(sent_on, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, short_code;

-- The same by the hour, for links over weeks. Sketches stand for the exact sets here, so that an hour costs a few hundred bytes a link
-- whatever its traffic: `approx_distinct` is within 3.3 %, `approx_percentile_cont` within 1 % of the value, and each the same in every run.
CREATE MATERIALIZED VIEW links_per_hour
WITH (lateness = '1 hour') AS
SELECT window_start, window_end, short_code,
       count(*) AS deliveries,
       approx_distinct(visitor_id) AS visitors,
       min(ts) AS first_click,
       max(ts) AS last_click,
       avg(redirect_us) AS mean_redirect_us,
       approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY redirect_us) AS p95_redirect_us
FROM tumble(sent_on, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, short_code;

-- Hopping windows: ten minutes long, a new one every minute, so each click is in ten of them. What each window holds is put together from
-- one-minute panes; a finer slide costs no more.
CREATE VIEW clicks_in_ten_minutes AS
SELECT window_start, window_end, short_code, count(*) AS clicks
FROM hop(human_clicks, ts, INTERVAL '1 minute', INTERVAL '10 minutes')
GROUP BY window_start, window_end, short_code;

-- Top-k: number the rows of each window and keep the first hundred. The short code breaks ties, so there is one answer.
CREATE MATERIALIZED VIEW hot_links AS
SELECT window_start, window_end, place, short_code, clicks
FROM (
    SELECT window_start, window_end, short_code, clicks,
           ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY clicks DESC, short_code) AS place
    FROM clicks_in_ten_minutes
) AS ranked
WHERE place <= 100;

-- 4. Where clicks come from -----------------------------------------------------------------------------------------------------------------

-- All requests, also the dead ones: FILTER counts each kind beside the others in one pass.
CREATE MATERIALIZED VIEW countries_per_minute
WITH (lateness = '10 minutes') AS
SELECT window_start, window_end, country,
       count(*) AS requests,
       count(*) FILTER (WHERE status = 302 AND NOT bot) AS human_clicks,
       count(*) FILTER (WHERE status = 302 AND bot) AS robot_clicks,
       count(*) FILTER (WHERE status <> 302) AS dead,
       approx_distinct(visitor_id) AS visitors
FROM tumble(requests, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, country;

CREATE MATERIALIZED VIEW referrers_per_hour
WITH (lateness = '1 hour') AS
SELECT window_start, window_end, referrer_host,
       count(*) AS clicks,
       approx_distinct(visitor_id) AS visitors,
       approx_distinct(short_code) AS links
FROM tumble(human_clicks, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, referrer_host;

CREATE MATERIALIZED VIEW devices_per_hour
WITH (lateness = '1 hour') AS
SELECT window_start, window_end, device, os, browser,
       count(*) AS clicks,
       approx_distinct(visitor_id) AS visitors
FROM tumble(sent_on, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, device, os, browser;

-- 5. People and robots ----------------------------------------------------------------------------------------------------------------------

-- UNION ALL puts two streams into one. Every click is in exactly one of the two.
CREATE VIEW labelled_clicks AS
SELECT ts, 'people' AS audience, short_code, visitor_id, redirect_us FROM human_clicks
UNION ALL
SELECT ts, 'robots' AS audience, short_code, visitor_id, redirect_us FROM robot_clicks;

CREATE MATERIALIZED VIEW audience_per_minute
WITH (lateness = '10 minutes') AS
SELECT window_start, window_end, audience,
       count(*) AS clicks,
       count(DISTINCT visitor_id) AS visitors,
       approx_distinct(short_code) AS links,
       sum(redirect_us) AS redirect_us,
       max(redirect_us) AS slowest_us
FROM tumble(labelled_clicks, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, audience;

-- Visitors that click like machines, whatever they say they are. HAVING keeps the few rows that matter; without it every visitor of every
-- minute would be a row.
CREATE MATERIALIZED VIEW fast_visitors AS
SELECT window_start, window_end, visitor_id,
       count(*) AS requests,
       count(DISTINCT short_code) AS codes,
       bool_or(bot) AS says_bot
FROM tumble(requests, ts, INTERVAL '1 minute')
GROUP BY window_start, window_end, visitor_id
HAVING count(*) >= 30;

-- 6. Sessions -------------------------------------------------------------------------------------------------------------------------------

-- A session is a run of one visitor's clicks with no gap of more than 30 minutes. It ends (`window_end`) 30 minutes after its last click
-- and is published when the watermark has passed that. The columns after the gap are what sessions are kept by.
CREATE MATERIALIZED VIEW visitor_sessions AS
SELECT window_start, window_end, visitor_id,
       count(*) AS clicks,
       count(DISTINCT short_code) AS links,
       min(ts) AS first_click,
       max(ts) AS last_click
FROM session(human_clicks, ts, INTERVAL '30 minutes', visitor_id)
GROUP BY window_start, window_end, visitor_id;

-- The same turned round: a session of a link is a time in which people clicked it. That it has closed means that the link has gone quiet,
-- at `window_end`. No timer per link is needed, however many links there are.
CREATE MATERIALIZED VIEW links_gone_quiet AS
SELECT window_start, window_end, short_code,
       count(*) AS clicks,
       max(ts) AS last_click
FROM session(human_clicks, ts, INTERVAL '30 minutes', short_code)
GROUP BY window_start, window_end, short_code
HAVING count(*) >= 5;

-- 7. What went wrong ------------------------------------------------------------------------------------------------------------------------

-- Requests that led nowhere: expired links, codes that nobody was given, and what no code can look like (scanners, typos, attacks).
CREATE VIEW dead_requests AS
SELECT ts, short_code, ip,
       CASE WHEN status = 410 THEN 'expired' WHEN regexp_like(short_code, '^[0-9A-Za-z]+$') THEN 'unknown' ELSE 'malformed' END AS reason
FROM requests
WHERE status IN (404, 410);

CREATE MATERIALIZED VIEW dead_per_hour
WITH (lateness = '1 hour') AS
SELECT window_start, window_end, short_code, reason,
       count(*) AS requests,
       count(DISTINCT ip) AS addresses
FROM tumble(dead_requests, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, short_code, reason;

-- 8. Whose links they are -------------------------------------------------------------------------------------------------------------------

-- A changelog: PRIMARY KEY says that a record replaces the one before it with its key, and that a record without a value takes it away. The
-- topic may be compacted. `links_now` is its rows as they are now.
CREATE TABLE links (
    short_code VARCHAR,
    owner_id   BIGINT NOT NULL,
    campaign   VARCHAR,
    domain     VARCHAR NOT NULL,
    changed_at TIMESTAMP(3) NOT NULL,
    PRIMARY KEY (short_code),
    WATERMARK FOR changed_at AS changed_at - INTERVAL '5 seconds'
) WITH (connector = 'kafka', topic = 'url.links', format = 'json');

CREATE MATERIALIZED VIEW links_now AS
SELECT short_code, owner_id, campaign, domain, changed_at FROM links;

-- ASOF JOIN: each click with its link as it was when it was clicked, not as it is now. A click that overtakes its link's record waits for it:
-- until both streams have passed its time. A click on a link that nobody owns (yet, or any more) stays, with NULLs.
CREATE VIEW owned_clicks AS
SELECT c.event_id, c.ts, c.short_code, c.visitor_id, l.owner_id, l.campaign
FROM human_clicks AS c ASOF JOIN links AS l MATCH_CONDITION (c.ts >= l.changed_at) ON c.short_code = l.short_code;

CREATE MATERIALIZED VIEW campaigns_per_hour AS
SELECT window_start, window_end, campaign,
       count(DISTINCT event_id) AS clicks,
       count(DISTINCT owner_id) AS owners,
       count(DISTINCT short_code) AS links,
       count(*) FILTER (WHERE owner_id IS NULL) AS nobodys
FROM tumble(owned_clicks, ts, INTERVAL '1 hour')
GROUP BY window_start, window_end, campaign;

-- 9. What people buy ------------------------------------------------------------------------------------------------------------------------

CREATE TABLE conversions (
    order_id   BIGINT NOT NULL,                     -- a shop that is not sure sends an order again with the same id
    ts         TIMESTAMP(3) NOT NULL,
    visitor_id VARCHAR NOT NULL,
    short_code VARCHAR NOT NULL,
    amount     DECIMAL(10, 2) NOT NULL,             -- money is never a float
    WATERMARK FOR ts AS ts - INTERVAL '5 seconds'
) WITH (connector = 'kafka', topic = 'url.conversions', format = 'json');

-- An interval join: an order belongs to the clicks on its link by the same visitor within the ten minutes before it. The bound is what makes
-- the join possible on endless streams: a row is kept for as long as a match may still come, and no longer.
CREATE VIEW converted AS
SELECT o.order_id, o.ts, o.short_code, o.visitor_id, o.amount, c.ts AS clicked_at
FROM conversions AS o
JOIN human_clicks AS c
  ON c.visitor_id = o.visitor_id AND c.short_code = o.short_code AND c.ts BETWEEN o.ts - INTERVAL '10 minutes' AND o.ts;

-- Of the clicks before an order the last one counts, and of an order that was sent twice the first record: ROW_NUMBER() = 1 is how duplicates
-- are removed, within windows at a cost that ends with the window.
CREATE MATERIALIZED VIEW orders AS
SELECT window_start, window_end, order_id, short_code, visitor_id, amount, clicked_at
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end, order_id ORDER BY clicked_at DESC) AS place
      FROM tumble(converted, ts, INTERVAL '1 hour')) AS attributed
WHERE place = 1;

CREATE MATERIALIZED VIEW sales_per_hour AS
SELECT window_start, window_end, short_code,
       count(*) AS orders,
       sum(amount) AS amount
FROM orders
GROUP BY window_start, window_end, short_code;

-- A LEFT JOIN gives the rows without a match too, once it is certain that none comes: orders that no click explains.
CREATE MATERIALIZED VIEW unexplained_orders AS
SELECT order_id, ts, short_code, visitor_id, amount
FROM conversions AS o
WHERE NOT EXISTS (SELECT 1 FROM human_clicks AS c
                  WHERE c.visitor_id = o.visitor_id AND c.short_code = o.short_code AND c.ts BETWEEN o.ts - INTERVAL '10 minutes' AND o.ts);

-- 10. Robots by what they do ----------------------------------------------------------------------------------------------------------------

-- A machine that says it is a browser still clicks like a machine: many links, hardly one twice, and no pause. Judged by whole sessions.
CREATE MATERIALIZED VIEW suspicious_sessions AS
SELECT window_start, window_end, visitor_id,
       count(*) AS requests,
       count(DISTINCT short_code) AS codes,
       count(*) FILTER (WHERE status <> 302) AS dead,
       bool_or(bot) AS says_bot
FROM session(requests, ts, INTERVAL '30 minutes', visitor_id)
GROUP BY window_start, window_end, visitor_id
HAVING count(*) >= 40 OR (count(*) >= 15 AND count(DISTINCT short_code) * 10 >= count(*) * 9);

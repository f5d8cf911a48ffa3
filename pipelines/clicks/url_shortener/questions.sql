-- What people ask of the URL shortener's tables. Each question stands above its query:
--
--   tidemill sql < pipelines/clicks/url_shortener/questions.sql
--
-- The tables may be read while the pipeline writes them; all tables of one query show the same epoch. "Now" is the newest minute in the
-- tables rather than the machine's clock, so the answers are the same whenever the same clicks are asked about.

-- Q: What were the busiest minutes, and how many people and robots were there?
SELECT window_start,
       sum(clicks) AS clicks,
       sum(CASE WHEN audience = 'people' THEN visitors ELSE 0 END) AS people,
       sum(CASE WHEN audience = 'robots' THEN visitors ELSE 0 END) AS robots
FROM url_shortener.audience_per_minute
GROUP BY window_start
ORDER BY clicks DESC, window_start
LIMIT 10;

-- Q: Which links were clicked most, and what share of each is robots?
SELECT short_code,
       sum(clicks) AS clicks,
       round(100.0 * sum(robot_clicks) / sum(clicks), 1) AS robot_percent,
       max(visitors) AS most_visitors_in_a_minute
FROM url_shortener.clicks_per_minute
GROUP BY short_code
ORDER BY clicks DESC, short_code
LIMIT 10;

-- Q: Which links are surging: the last 15 minutes against the hour before, per minute?
WITH newest AS (SELECT max(window_start) AS minute FROM url_shortener.clicks_per_minute),
recent AS (
    SELECT short_code,
           sum(CASE WHEN window_start > minute - INTERVAL '15 minutes' THEN clicks ELSE 0 END) AS last_quarter,
           sum(CASE WHEN window_start <= minute - INTERVAL '15 minutes' THEN clicks ELSE 0 END) AS hour_before
    FROM url_shortener.clicks_per_minute CROSS JOIN newest
    WHERE window_start > minute - INTERVAL '75 minutes'
    GROUP BY short_code
)
SELECT short_code, last_quarter, hour_before, round(4.0 * last_quarter / hour_before, 1) AS surge
FROM recent
WHERE hour_before > 0 AND last_quarter >= 20
ORDER BY surge DESC, last_quarter DESC, short_code
LIMIT 10;

-- Q: What is hot right now (the last ten minutes that are complete)?
SELECT place, short_code, clicks, window_start
FROM url_shortener.hot_links
WHERE window_end = (SELECT max(window_start) FROM url_shortener.clicks_per_minute)
ORDER BY place
LIMIT 10;

-- Q: Which links have stayed among the ten hottest for longest?
SELECT short_code, count(*) AS windows, min(place) AS best_place, max(clicks) AS most_clicks
FROM url_shortener.hot_links
WHERE place <= 10
GROUP BY short_code
ORDER BY windows DESC, best_place, short_code
LIMIT 10;

-- Q: Which sites send us people?
SELECT referrer_host,
       sum(clicks) AS clicks,
       round(100.0 * sum(clicks) / (SELECT sum(clicks) FROM url_shortener.referrers_per_hour), 1) AS percent
FROM url_shortener.referrers_per_hour
GROUP BY referrer_host
ORDER BY clicks DESC, referrer_host
LIMIT 10;

-- Q: How much of the traffic is robots, hour by hour?
SELECT date_trunc('hour', window_start) AS hour,
       sum(clicks) AS clicks,
       round(100.0 * sum(CASE WHEN audience = 'robots' THEN clicks ELSE 0 END) / sum(clicks), 1) AS robot_percent
FROM url_shortener.audience_per_minute
GROUP BY date_trunc('hour', window_start)
ORDER BY hour DESC
LIMIT 10;

-- Q: Who clicks like a machine and says it is a browser?
SELECT visitor_id, count(*) AS minutes, sum(requests) AS requests, max(requests) AS most_in_a_minute, max(codes) AS most_codes
FROM url_shortener.fast_visitors
WHERE NOT says_bot
GROUP BY visitor_id
ORDER BY requests DESC, visitor_id
LIMIT 10;

-- Q: In which countries do requests end at a dead link most often?
SELECT country,
       sum(requests) AS requests,
       sum(human_clicks) AS human_clicks,
       round(100.0 * sum(dead) / sum(requests), 2) AS dead_percent
FROM url_shortener.countries_per_minute
WHERE country IS NOT NULL
GROUP BY country
HAVING sum(requests) >= 100
ORDER BY dead_percent DESC, requests DESC, country
LIMIT 10;

-- Q: What do people hold in their hands?
SELECT device, sum(clicks) AS clicks, round(100.0 * sum(clicks) / (SELECT sum(clicks) FROM url_shortener.devices_per_hour), 1) AS percent
FROM url_shortener.devices_per_hour
GROUP BY device
ORDER BY clicks DESC, device
LIMIT 10;

-- Q: Which browsers on which systems are used most?
SELECT browser, os, sum(clicks) AS clicks
FROM url_shortener.devices_per_hour
WHERE device <> 'bot'
GROUP BY browser, os
ORDER BY clicks DESC, browser, os
LIMIT 10;

-- Q: How long is a visit, and how much is clicked in it?
SELECT count(*) AS sessions,
       median(CAST(date_part('epoch', last_click) - date_part('epoch', first_click) AS DOUBLE)) AS median_seconds,
       median(clicks) AS median_clicks,
       round(avg(clicks), 2) AS mean_clicks,
       round(100.0 * sum(CASE WHEN clicks = 1 THEN 1 ELSE 0 END) / count(*), 1) AS one_click_percent
FROM url_shortener.visitor_sessions;

-- Q: Who comes back most?
SELECT visitor_id, count(*) AS sessions, sum(clicks) AS clicks, min(first_click) AS first_seen, max(last_click) AS last_seen
FROM url_shortener.visitor_sessions
GROUP BY visitor_id
HAVING count(*) > 1
ORDER BY sessions DESC, clicks DESC, visitor_id
LIMIT 10;

-- Q: How many visitors come once, twice, three times …?
SELECT sessions, count(*) AS visitors
FROM (SELECT visitor_id, count(*) AS sessions FROM url_shortener.visitor_sessions GROUP BY visitor_id) AS per_visitor
GROUP BY sessions
ORDER BY sessions
LIMIT 10;

-- Q: Which links went quiet in the last hour, the busiest first?
WITH newest AS (SELECT max(window_start) AS minute FROM url_shortener.clicks_per_minute)
SELECT short_code, clicks, window_start AS since, window_end AS quiet_at
FROM url_shortener.links_gone_quiet CROSS JOIN newest
WHERE window_end > minute - INTERVAL '1 hour' AND window_end <= minute
ORDER BY clicks DESC, quiet_at, short_code
LIMIT 10;

-- Q: Is someone enumerating the key space?
SELECT window_start, sum(requests) AS misses, count(DISTINCT short_code) AS codes_tried, round(1.0 * sum(requests) / count(*), 2) AS tries_per_code
FROM url_shortener.dead_per_hour
WHERE reason = 'unknown'
GROUP BY window_start
HAVING count(DISTINCT short_code) > 1000
ORDER BY window_start DESC
LIMIT 10;

-- Q: Which expired links are still asked for, and from how many addresses in their busiest hour?
SELECT short_code, sum(requests) AS requests, max(addresses) AS addresses
FROM url_shortener.dead_per_hour
WHERE reason = 'expired'
GROUP BY short_code
ORDER BY requests DESC, short_code
LIMIT 10;

-- Q: Which links were slow to redirect, counting hours of at least 100 clicks?
SELECT short_code, sum(deliveries) AS deliveries, max(p95_redirect_us) AS worst_p95_us
FROM url_shortener.links_per_hour
WHERE deliveries >= 100
GROUP BY short_code
ORDER BY worst_p95_us DESC, short_code
LIMIT 10;

-- Q: How many clicks were sent more than once?
SELECT sum(deliveries) AS deliveries, sum(clicks) AS clicks, sum(deliveries) - sum(clicks) AS repeats
FROM url_shortener.clicks_per_minute;

-- Q: What was wrong with the records that could not be read?
SELECT reason, count(*) AS records, min("timestamp") AS first_seen
FROM url_shortener.dead_letters
GROUP BY reason
ORDER BY records DESC, reason
LIMIT 10;

-- Q: How late were the clicks that came too late for their minute?
SELECT date_trunc('hour', window_start) AS hour_missed,
       count(*) AS clicks,
       round(max(date_part('epoch', watermark) - date_part('epoch', event_time)) / 60, 1) AS minutes_behind_at_most
FROM url_shortener.late_events
WHERE output = 'clicks_per_minute'
GROUP BY date_trunc('hour', window_start)
ORDER BY hour_missed DESC
LIMIT 10;

-- Q: Does every record of the topic have its place?
SELECT output,
       sum(rows_in) AS rows_in, sum(dead) AS dead, sum(duplicate) AS duplicate, sum(filtered) AS filtered, sum(late) AS late, sum("out") AS published,
       sum(rows_in) - sum(dead + duplicate + filtered + late + "out") AS still_held
FROM tidemill.accounting
WHERE pipeline = 'url_shortener'
GROUP BY output
ORDER BY output
LIMIT 20;

-- Q: Which campaigns bring the clicks, and how many are on links that nobody owns?
SELECT campaign, sum(clicks) AS clicks, max(owners) AS owners, sum(nobodys) AS nobodys
FROM url_shortener.campaigns_per_hour GROUP BY campaign ORDER BY clicks DESC LIMIT 10;

-- Q: What do links earn within ten minutes of a click?
SELECT short_code, sum(orders) AS orders, sum(amount) AS amount
FROM url_shortener.sales_per_hour GROUP BY short_code ORDER BY amount DESC, short_code LIMIT 5;

-- Q: Whose links earn most, by who owns them now?
SELECT l.owner_id, count(DISTINCT s.short_code) AS links, sum(s.orders) AS orders, sum(s.amount) AS amount
FROM url_shortener.sales_per_hour s JOIN url_shortener.links_now l ON l.short_code = s.short_code
GROUP BY l.owner_id ORDER BY amount DESC, l.owner_id LIMIT 5;

-- Q: How many orders does no click explain?
SELECT count(*) AS orders, sum(amount) AS amount FROM url_shortener.unexplained_orders;

-- Q: Who clicks like a machine and says nothing of it?
SELECT visitor_id, window_start, requests, codes, dead FROM url_shortener.suspicious_sessions
WHERE NOT says_bot ORDER BY requests DESC, visitor_id LIMIT 5;

-- Nexmark: the benchmark's queries over the people, auctions and bids of an online auction.
--
--   tidemill demo nexmark                                   an embedded broker, a made-up auction, the answers
--   tidemill run pipelines/nexmark/nexmark/pipeline.sql     the same over your own topics
--   tidemill verify pipelines/nexmark/nexmark/pipeline.sql  every table against a batch over the same records
--
-- Each output is called as its query is, q0 to q22. README.md says which are not here, and why.

SET pipeline = 'nexmark';

-- 1. The sources ----------------------------------------------------------------------------------------------------------------------------

CREATE TABLE person (
    id           BIGINT NOT NULL,
    name         VARCHAR NOT NULL,
    emailAddress VARCHAR,
    creditCard   VARCHAR,
    city         VARCHAR,
    state        VARCHAR,
    dateTime     TIMESTAMP(3) NOT NULL,
    extra        VARCHAR,
    WATERMARK FOR dateTime AS dateTime - INTERVAL '4 seconds'
) WITH (connector = 'kafka', topic = 'nexmark.person', format = 'json');

CREATE TABLE auction (
    id          BIGINT NOT NULL,
    itemName    VARCHAR,
    description VARCHAR,
    initialBid  BIGINT,
    reserve     BIGINT,
    dateTime    TIMESTAMP(3) NOT NULL,
    expires     TIMESTAMP(3) NOT NULL,
    seller      BIGINT NOT NULL,
    category    BIGINT NOT NULL,
    extra       VARCHAR,
    WATERMARK FOR dateTime AS dateTime - INTERVAL '4 seconds'
) WITH (connector = 'kafka', topic = 'nexmark.auction', format = 'json');

CREATE TABLE bid (
    auction  BIGINT NOT NULL,
    bidder   BIGINT NOT NULL,
    price    BIGINT NOT NULL,                      -- cents
    channel  VARCHAR NOT NULL,
    url      VARCHAR NOT NULL,
    dateTime TIMESTAMP(3) NOT NULL,
    extra    VARCHAR,
    WATERMARK FOR dateTime AS dateTime - INTERVAL '4 seconds'
) WITH (connector = 'kafka', topic = 'nexmark.bid', format = 'json');

-- 2. Queries of one row at a time -----------------------------------------------------------------------------------------------------------

-- q0, pass through: every bid.
CREATE MATERIALIZED VIEW q0 AS
SELECT auction, bidder, price, datetime, extra FROM bid;

-- q1, currency conversion: prices in euros, as exact decimals.
CREATE MATERIALIZED VIEW q1 AS
SELECT auction, bidder, 0.908 * price AS price, datetime, extra FROM bid;

-- q2, selection: bids on certain auctions.
CREATE MATERIALIZED VIEW q2 AS
SELECT auction, price FROM bid WHERE auction % 123 = 0;

-- q10, log to a file system: every output is a Delta table; this one has columns for the day and the minute.
CREATE MATERIALIZED VIEW q10 AS
SELECT auction, bidder, price, datetime, extra, CAST(datetime AS DATE) AS day, date_trunc('minute', datetime) AS minute FROM bid;

-- q14, calculation: conversion, a kind of time, and a count of letters; only prices within bounds.
CREATE MATERIALIZED VIEW q14 AS
SELECT auction,
       bidder,
       0.908 * price AS price,
       CASE WHEN date_part('hour', datetime) >= 8 AND date_part('hour', datetime) <= 18 THEN 'dayTime'
            WHEN date_part('hour', datetime) <= 6 OR date_part('hour', datetime) >= 20 THEN 'nightTime'
            ELSE 'otherTime' END AS bid_time_type,
       datetime,
       extra,
       length(extra) - length(replace(extra, 'c', '')) AS c_counts
FROM bid
WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000;

-- q21, add channel id: known channels have numbers, others name theirs in the URL.
CREATE MATERIALIZED VIEW q21 AS
SELECT auction,
       bidder,
       price,
       channel,
       CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1' WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
            ELSE split_part(split_part(url, 'channel_id=', 2), '&', 1) END AS channel_id
FROM bid
WHERE lower(channel) IN ('apple', 'google', 'facebook', 'baidu') OR strpos(url, 'channel_id=') > 0;

-- q22, get URL directories.
CREATE MATERIALIZED VIEW q22 AS
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM bid;

-- 3. Windows --------------------------------------------------------------------------------------------------------------------------------

-- q7, highest bid: the bid of the highest price in each ten seconds. The original joins the bids with their maximum and gives all bids of that
-- price; ROW_NUMBER gives the first of them.
CREATE MATERIALIZED VIEW q7 AS
SELECT window_start, window_end, auction, bidder, price, datetime, extra
FROM (SELECT *, row_number() OVER (PARTITION BY window_start, window_end ORDER BY price DESC) AS place
      FROM tumble(bid, datetime, INTERVAL '10 seconds'))
WHERE place = 1;

-- q11, user sessions: how many bids each bidder makes in one go.
CREATE MATERIALIZED VIEW q11 AS
SELECT bidder, count(*) AS bid_count, window_start AS starttime, window_end AS endtime
FROM session(bid, datetime, INTERVAL '10 seconds', bidder)
GROUP BY bidder, window_start, window_end;

-- 4. Running results ------------------------------------------------------------------------------------------------------------------------

-- Prices by size, as q15 to q17 count them.
CREATE VIEW ranked AS
SELECT *,
       CAST(datetime AS DATE) AS day,
       CASE WHEN price < 10000 THEN 1 WHEN price < 1000000 THEN 2 ELSE 3 END AS size
FROM bid;

-- q15, bidding statistics of a day.
CREATE MATERIALIZED VIEW q15 AS
SELECT day,
       count(*) AS total_bids,
       count(*) FILTER (WHERE size = 1) AS rank1_bids,
       count(*) FILTER (WHERE size = 2) AS rank2_bids,
       count(*) FILTER (WHERE size = 3) AS rank3_bids,
       count(DISTINCT bidder) AS total_bidders,
       count(DISTINCT bidder) FILTER (WHERE size = 1) AS rank1_bidders,
       count(DISTINCT bidder) FILTER (WHERE size = 2) AS rank2_bidders,
       count(DISTINCT bidder) FILTER (WHERE size = 3) AS rank3_bidders,
       count(DISTINCT auction) AS total_auctions,
       count(DISTINCT auction) FILTER (WHERE size = 1) AS rank1_auctions,
       count(DISTINCT auction) FILTER (WHERE size = 2) AS rank2_auctions,
       count(DISTINCT auction) FILTER (WHERE size = 3) AS rank3_auctions
FROM ranked
GROUP BY day;

-- q16, statistics of a channel's day.
CREATE MATERIALIZED VIEW q16 AS
SELECT channel,
       day,
       max(date_trunc('minute', datetime)) AS minute,
       count(*) AS total_bids,
       count(*) FILTER (WHERE size = 1) AS rank1_bids,
       count(*) FILTER (WHERE size = 2) AS rank2_bids,
       count(*) FILTER (WHERE size = 3) AS rank3_bids,
       count(DISTINCT bidder) AS total_bidders,
       count(DISTINCT auction) AS total_auctions
FROM ranked
GROUP BY channel, day;

-- q17, statistics of an auction's day.
CREATE MATERIALIZED VIEW q17 AS
SELECT auction,
       day,
       count(*) AS total_bids,
       count(*) FILTER (WHERE size = 1) AS rank1_bids,
       count(*) FILTER (WHERE size = 2) AS rank2_bids,
       count(*) FILTER (WHERE size = 3) AS rank3_bids,
       min(price) AS min_price,
       max(price) AS max_price,
       avg(price) AS avg_price,
       sum(price) AS sum_price
FROM ranked
GROUP BY auction, day;

-- q18, find last bid: of each bidder on each auction.
CREATE MATERIALIZED VIEW q18 AS
SELECT auction, bidder, price, channel, url, datetime, extra
FROM (SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY datetime DESC) AS place FROM bid)
WHERE place = 1;

-- q19, auction top 10: the ten highest bids on each auction.
CREATE MATERIALIZED VIEW q19 AS
SELECT auction, bidder, price, channel, url, datetime, extra, place
FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bid)
WHERE place <= 10;

-- 5. Joins ----------------------------------------------------------------------------------------------------------------------------------

-- q3, local item suggestion: who sells in three states in category 10. The original keeps both streams for ever; here each auction meets what was
-- known of its seller when it was put up.
CREATE MATERIALIZED VIEW q3 AS
SELECT p.name, p.city, p.state, a.id
FROM auction AS a ASOF JOIN person AS p MATCH_CONDITION (a.datetime >= p.datetime) ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA');

-- The bids on each auction while it was open, which is a minute at most.
CREATE VIEW bids_while_open AS
SELECT a.id, a.itemname, a.description, a.initialbid, a.reserve, a.datetime AS opened, a.expires, a.seller, a.category,
       b.auction, b.bidder, b.price, b.datetime, b.extra
FROM auction AS a
JOIN bid AS b ON a.id = b.auction AND b.datetime BETWEEN a.datetime AND a.datetime + INTERVAL '61 seconds' AND b.datetime <= a.expires;

-- q4, average price of a category: of the highest bids of its auctions.
CREATE MATERIALIZED VIEW q4 AS
SELECT category, avg(final) AS average
FROM (SELECT id, category, max(price) AS final FROM bids_while_open GROUP BY id, category)
GROUP BY category;

-- q9, winning bids: the highest one of each auction, of equal ones the first.
CREATE MATERIALIZED VIEW q9 AS
SELECT id, itemname, description, initialbid, reserve, opened, expires, seller, category, auction, bidder, price, datetime, extra
FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY price DESC, datetime) AS place FROM bids_while_open)
WHERE place = 1;

-- q5, hot items: the auctions with the most bids in ten seconds, every two seconds.
CREATE VIEW bids_of_auctions AS
SELECT window_start, window_end, auction, count(*) AS num
FROM hop(bid, datetime, INTERVAL '2 seconds', INTERVAL '10 seconds')
GROUP BY window_start, window_end, auction;

CREATE MATERIALIZED VIEW q5 AS
SELECT c.window_start, c.window_end, c.auction, c.num
FROM bids_of_auctions AS c
JOIN (SELECT window_start, window_end, max(num) AS most FROM bids_of_auctions GROUP BY window_start, window_end) AS m
  ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.most;

-- q8, monitor new users: who came and put something up within the same ten seconds.
CREATE MATERIALIZED VIEW q8 AS
SELECT p.window_start AS starttime, p.window_end AS endtime, p.id, p.name
FROM (SELECT window_start, window_end, id, name FROM tumble(person, datetime, INTERVAL '10 seconds')
      GROUP BY window_start, window_end, id, name) AS p
JOIN (SELECT window_start, window_end, seller FROM tumble(auction, datetime, INTERVAL '10 seconds')
      GROUP BY window_start, window_end, seller) AS s
  ON p.id = s.seller AND p.window_start = s.window_start AND p.window_end = s.window_end;

-- q20, expand bid with auction: the original has no bound; no bid comes ten minutes after its auction.
CREATE MATERIALIZED VIEW q20 AS
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.datetime, a.itemname, a.description, a.initialbid, a.reserve, a.expires, a.seller, a.category
FROM bid AS b
JOIN auction AS a ON b.auction = a.id AND b.datetime BETWEEN a.datetime - INTERVAL '10 seconds' AND a.datetime + INTERVAL '10 minutes'
WHERE a.category = 10;

-- What the auction's tables say. Each question stands above its query:
--
--   tidemill sql < pipelines/nexmark/nexmark/questions.sql

-- Q: Which days saw how many bids, of which size, by how many people?
SELECT day, total_bids, rank1_bids, rank2_bids, rank3_bids, total_bidders, total_auctions FROM nexmark.q15 ORDER BY day;

-- Q: Which auctions took the most money?
SELECT auction, total_bids, max_price, round(avg_price, 2) AS avg_price, sum_price FROM nexmark.q17 ORDER BY sum_price DESC, auction LIMIT 10;

-- Q: What were the highest bids of the first minute, ten seconds each?
SELECT window_start, auction, bidder, price FROM nexmark.q7 ORDER BY window_start LIMIT 6;

-- Q: Who bids longest in one go?
SELECT bidder, bid_count, starttime, endtime FROM nexmark.q11 ORDER BY bid_count DESC, bidder LIMIT 5;

-- Q: Which channels bring the most bids?
SELECT channel, sum(total_bids) AS bids, max(total_bidders) AS most_bidders_in_a_day
FROM nexmark.q16 GROUP BY channel ORDER BY bids DESC, channel LIMIT 6;

-- Q: What does a category bring on average?
SELECT category, round(average, 2) AS average FROM nexmark.q4 ORDER BY category;

-- Q: Which auctions were hot, and how often?
SELECT auction, count(*) AS windows, max(num) AS most_bids FROM nexmark.q5 GROUP BY auction ORDER BY windows DESC, auction LIMIT 5;

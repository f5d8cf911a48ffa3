//! The bids: JSON of about 200 bytes with seven fields, 100,000 keys, half of the traffic on 100 of them.
//!
//! Always: bid `i` lies in partition `i % PARTITIONS` at offset `i / PARTITIONS`; event time goes up with `i`: `FULL` bids a second, which
//! is what one core is asked to do, so windows close as often as they would at full speed, or slower, so that long windows close at all.

use std::fmt::Write;

/// Partitions of the log.
pub const PARTITIONS: usize = 4;
/// How dense bids are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bids a second of event time.
    pub rate: u64,
    /// Keys.
    pub keys: u64,
    /// The keys that get half of the bids.
    pub hot_keys: u64,
}

/// A busy topic.
pub const FULL: Pace = Pace { rate: 500_000, keys: 100_000, hot_keys: 100 };
/// Few keys over a long time: 20 minutes in 6 M bids.
pub const LONG: Pace = Pace { rate: 5_000, keys: 1_000, hot_keys: 10 };
/// Event time of the first bid, in microseconds: 2024-05-17T08:00:00Z.
pub const BEGIN_US: i64 = 1_715_932_800_000_000;
/// Their columns, as SQL declares them.
pub const COLUMNS: &str = "auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR NOT NULL, \
    url VARCHAR NOT NULL, dateTime TIMESTAMP(3) NOT NULL, extra VARCHAR NOT NULL, WATERMARK FOR dateTime AS dateTime - INTERVAL '1 second'";
/// The delay of that watermark.
pub const DELAY_US: i64 = 1_000_000;

/// Bids one after the other.
pub struct Bids {
    pace: Pace,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    auctions: Vec<u32>,
    bidders: Vec<u32>,
    prices: Vec<u32>,
}

impl Bids {
    /// The first `count` bids of a pace.
    pub fn new(count: usize, pace: Pace) -> Self {
        let mut state = 42_u64;
        let mut random = move |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        let mut bids = Self {
            pace,
            bytes: Vec::with_capacity(count * 216),
            ends: Vec::new(),
            auctions: Vec::new(),
            bidders: Vec::new(),
            prices: Vec::new(),
        };
        let mut record = String::with_capacity(256);
        for bid in 0..count {
            let auction = if random(2) == 0 { random(pace.hot_keys) } else { random(pace.keys) };
            let (bidder, price, channel) = (random(FULL.keys), 100 + random(100_000_000), random(10_000));
            let ms = (bids.time_us(bid) - BEGIN_US) / 1_000;
            let (minute, second, milli) = (ms / 60_000, ms / 1_000 % 60, ms % 1_000);
            record.clear();
            let _ = write!(
                record,
                r#"{{"auction":{auction},"bidder":{bidder},"price":{price},"channel":"channel-{channel}","url":"https://www.nexmark.com/"#
            );
            (0..5 + random(20)).for_each(|_| record.push(char::from(b'a' + random(26) as u8)));
            let _ = write!(record, r#"/item.htm?query=1","dateTime":"2024-05-17T08:{minute:02}:{second:02}.{milli:03}Z","extra":""#);
            (0..random(30)).for_each(|_| record.push(char::from(b'a' + random(26) as u8)));
            record.push_str("\"}");
            bids.bytes.extend_from_slice(record.as_bytes());
            bids.ends.push(bids.bytes.len());
            bids.auctions.push(auction as u32);
            bids.bidders.push(bidder as u32);
            bids.prices.push(price as u32);
        }
        bids
    }

    /// The event time of bid `bid`, to the millisecond.
    pub fn time_us(&self, bid: usize) -> i64 {
        BEGIN_US + (bid as u64 * 1_000 / self.pace.rate) as i64 * 1_000
    }

    /// How dense they are.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The record of bid `bid`.
    pub fn payload(&self, bid: usize) -> Option<&[u8]> {
        let end = *self.ends.get(bid)?;
        let start = bid.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.bytes.get(start..end)
    }

    /// The key of every bid.
    pub fn auctions(&self) -> &[u32] {
        &self.auctions
    }

    /// Who made every bid.
    pub fn bidders(&self) -> &[u32] {
        &self.bidders
    }

    /// The price of every bid.
    pub fn prices(&self) -> &[u32] {
        &self.prices
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Offsets in a partition.
    pub fn offsets(&self, partition: i32) -> i64 {
        let partition = partition as usize;
        (self.len() + PARTITIONS - 1 - partition) as i64 / PARTITIONS as i64
    }

    /// The bid at an offset of a partition.
    pub fn at(&self, partition: i32, offset: i64) -> Option<usize> {
        let bid = usize::try_from(offset).ok()? * PARTITIONS + usize::try_from(partition).ok()?;
        (bid < self.len()).then_some(bid)
    }

    /// The watermark when all bids were read: the least over the partitions.
    pub fn watermark_us(&self) -> i64 {
        self.time_us(self.len().saturating_sub(PARTITIONS)) - DELAY_US
    }
}

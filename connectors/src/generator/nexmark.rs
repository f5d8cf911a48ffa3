//! Nexmark: people, auctions and bids of an online auction, after the specification of Tucker, Tufte, Papadimos and Maier ("NEXMark", 2008)
//! with the proportions and hot spots of Apache Beam's generator. Topics `nexmark.person`, `nexmark.auction` and `nexmark.bid`, one JSON
//! object a record, keyed by the person's or the auction's id.
//!
//! What always holds: of 50 records one is a person, three are auctions and 46 are bids; a bid names an auction and a bidder that came before it,
//! half of the bids go to a hot auction and three in four come from a hot bidder; prices are cents, spread evenly over their orders of
//! magnitude. Records are at most four seconds out of order, none is bad: `Settings::defects` has no effect here.

use super::arrivals::{Arrivals, disorder_ms};
use super::json::{Object, write_int};
use super::math::{exp, ln};
use super::rng::Rng;
use super::{Case, Generated, Settings, Workload, partition_of};

/// The line of [`super::CASES`].
pub const CASE: Case = Case {
    name: "nexmark",
    summary: "an online auction: people, auctions and bids, with hot auctions and hot bidders",
    topics: &[PERSON, AUCTION, BID],
    rate_per_s: 10_000.0,
    demo_rate_per_s: 50.0,
    make: |settings| Box::new(Nexmark::new(settings)),
};

const PERSON: &str = "nexmark.person";
const AUCTION: &str = "nexmark.auction";
const BID: &str = "nexmark.bid";

/// Records of each kind in a round of so many.
const ROUND: u64 = 50;
const PEOPLE: u64 = 1;
const AUCTIONS: u64 = 3;
/// Ids count from here.
const FIRST_ID: i64 = 1000;
const FIRST_CATEGORY: i64 = 10;
const CATEGORIES: u64 = 5;
/// Of so many newest ids the first one is hot.
const HOT_EVERY: i64 = 100;
/// One bid in so many goes elsewhere than to the hot auction, one in so many comes from elsewhere than the hot bidder, one auction in
/// so many is another's than the hot seller's.
const COLD_AUCTION_ONE_IN: u64 = 2;
const COLD_BIDDER_ONE_IN: u64 = 4;
const COLD_SELLER_ONE_IN: u64 = 4;
/// Auctions that may get bids, people that are about.
const OPEN_AUCTIONS: i64 = 100;
const ACTIVE_PEOPLE: i64 = 1000;
const CHANNELS: u64 = 10_000;
/// An auction is open for so long at most.
const OPEN_MS_MAX: u64 = 60_000;

const STATES: &[&str] = &["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: &[&str] = &["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const FIRST_NAMES: &[&str] = &["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: &[&str] = &["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const HOT_CHANNELS: &[&str] = &["Google", "Facebook", "Baidu", "Apple"];

/// The workload.
pub struct Nexmark {
    partitions: u32,
    rng: Rng,
    arrivals: Arrivals,
    made: u64,
    text: Vec<u8>,
}

impl Nexmark {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let arrivals = Arrivals::new(settings.start_ms, settings.rate_per_s);
        Self { partitions: settings.partitions.max(1), rng: Rng::new(settings.seed), arrivals, made: 0, text: Vec::new() }
    }

    /// The newest person's number, counted from 0.
    fn last_person(&self) -> i64 {
        (self.made / ROUND) as i64
    }

    /// The newest auction's; -1 before the first.
    fn last_auction(&self) -> i64 {
        let (round, at) = (self.made / ROUND, self.made % ROUND);
        (round * AUCTIONS) as i64 - 1 + at.saturating_sub(PEOPLE - 1).min(AUCTIONS) as i64
    }

    fn active_person(&mut self) -> i64 {
        let last = self.last_person();
        self.rng.between((last - ACTIVE_PEOPLE).max(0), last + 1)
    }

    /// From one to a million units of money, in cents.
    fn price(&mut self) -> i64 {
        (exp(self.rng.unit() * 6.0 * ln(10.0)) * 100.0) as i64
    }

    /// Letters, at most so many.
    fn letters(&mut self, most: u64) -> &[u8] {
        let count = 3 + self.rng.below(most.saturating_sub(2));
        self.text.clear();
        for _ in 0..count {
            let letter = self.rng.below(27) as u8;
            self.text.push(if letter == 26 { b' ' } else { b'a' + letter });
        }
        &self.text
    }

    fn person(&mut self, ts_ms: i64, value: &mut Vec<u8>) -> i64 {
        let id = FIRST_ID + self.last_person();
        let (first, last) = (*self.rng.pick(FIRST_NAMES), *self.rng.pick(LAST_NAMES));
        let mut object = Object::begin(value);
        object.int("id", id);
        object.text("name", &format!("{first} {last}"));
        object.text("emailAddress", &format!("{}@example.com", String::from_utf8_lossy(self.letters(9)).replace(' ', ".")));
        let digits: Vec<String> = (0..4).map(|_| format!("{:04}", self.rng.below(10_000))).collect();
        object.text("creditCard", &digits.join(" "));
        object.text("city", self.rng.pick::<&str>(CITIES));
        object.text("state", self.rng.pick::<&str>(STATES));
        object.int("dateTime", ts_ms);
        object.plain("extra", self.letters(30));
        object.end();
        id
    }

    fn auction(&mut self, ts_ms: i64, value: &mut Vec<u8>) -> i64 {
        let id = FIRST_ID + self.last_auction();
        let hot = self.last_person() / HOT_EVERY * HOT_EVERY;
        let seller = FIRST_ID + if self.rng.once_in(COLD_SELLER_ONE_IN) { self.active_person() } else { hot };
        let (initial, reserve) = (self.price(), self.price());
        let mut object = Object::begin(value);
        object.int("id", id);
        object.plain("itemName", self.letters(20));
        object.plain("description", self.letters(60));
        object.int("initialBid", initial);
        object.int("reserve", initial + reserve);
        object.int("dateTime", ts_ms);
        object.int("expires", ts_ms + 1 + self.rng.below(OPEN_MS_MAX) as i64);
        object.int("seller", seller);
        object.int("category", FIRST_CATEGORY + self.rng.below(CATEGORIES) as i64);
        object.plain("extra", self.letters(40));
        object.end();
        id
    }

    fn bid(&mut self, ts_ms: i64, value: &mut Vec<u8>) -> i64 {
        let last = self.last_auction();
        let cold = self.rng.once_in(COLD_AUCTION_ONE_IN);
        let auction = if cold { self.rng.between((last - OPEN_AUCTIONS).max(0), last + 1) } else { last / HOT_EVERY * HOT_EVERY };
        let hot = (self.last_person() / HOT_EVERY * HOT_EVERY + 1).min(self.last_person());
        let bidder = if self.rng.once_in(COLD_BIDDER_ONE_IN) { self.active_person() } else { hot };
        let mut object = Object::begin(value);
        object.int("auction", FIRST_ID + auction);
        object.int("bidder", FIRST_ID + bidder);
        object.int("price", self.price());
        let (path, shown) = (self.rng.bits(), self.rng.below(CHANNELS) as i64);
        let hot = self.rng.once_in(2).then(|| *self.rng.pick(HOT_CHANNELS));
        self.text.clear();
        match hot {
            Some(channel) => object.text("channel", channel),
            None => {
                self.text.extend_from_slice(b"channel-");
                write_int(&mut self.text, shown);
                object.plain("channel", &self.text);
            }
        }
        self.text.clear();
        self.text.extend_from_slice(b"https://www.nexmark.com");
        for part in [path >> 40, path >> 20, path] {
            self.text.push(b'/');
            self.text.extend((0..5).map(|at| b'a' + (part >> (4 * at) & 15) as u8));
        }
        self.text.extend_from_slice(b"/item.htm?query=1");
        if hot.is_none() && path.is_multiple_of(10) {
            self.text.extend_from_slice(b"&channel_id=");
            write_int(&mut self.text, shown);
        }
        object.plain("url", &self.text);
        object.int("dateTime", ts_ms);
        object.plain("extra", self.letters(40));
        object.end();
        FIRST_ID + auction
    }
}

impl Workload for Nexmark {
    fn next_into(&mut self, record: &mut Generated) {
        let now_ms = self.arrivals.next_ms(&mut self.rng);
        let ts_ms = now_ms - disorder_ms(&mut self.rng);
        let (mut key, mut value) = (record.key.take().unwrap_or_default(), record.value.take().unwrap_or_default());
        key.clear();
        value.clear();
        let (topic, id) = match self.made % ROUND {
            at if at < PEOPLE => (PERSON, self.person(ts_ms, &mut value)),
            at if at < PEOPLE + AUCTIONS => (AUCTION, self.auction(ts_ms, &mut value)),
            _ => (BID, self.bid(ts_ms, &mut value)),
        };
        self.made += 1;
        write_int(&mut key, id);
        record.topic = topic;
        record.timestamp_ms = now_ms;
        record.partition = partition_of(&key, self.partitions);
        (record.key, record.value) = (Some(key), Some(value));
    }
}

#[cfg(test)]
#[path = "nexmark_tests.rs"]
mod tests;

//! What stands beside the clicks: who owns the links (topic `url.links`, keyed by code; a null takes a link away) and what people buy after a
//! click (topic `url.conversions`, keyed by visitor).
//!
//! What always holds: the clicks are those of [`UrlShortener`], byte for byte. A link's record comes right after its first click and says that
//! it was there before it, unless that click came hours late; later it may change or be taken away. One click in [`BUYER_ONE_IN`] by a person is
//! followed by an order within a quarter of an hour, so some come later than ten minutes; one order in [`TWICE_ONE_IN`] is sent twice.

use std::collections::BTreeMap;

use super::super::arrivals::{DISORDER_MS_MAX, disorder_ms};
use super::super::json::{Object, write_int};
use super::super::rng::{Rng, mix_with};
use super::super::{Generated, Settings, Workload, partition_of};
use super::links::LINKS;
use super::{Sent, UrlShortener};

/// The topic of links.
pub const LINKS_TOPIC: &str = "url.links";
/// The topic of orders.
pub const CONVERSIONS_TOPIC: &str = "url.conversions";

const BUYER_ONE_IN: u64 = 25;
const TWICE_ONE_IN: u64 = 50;
/// Of clicks on a link that is known, one in so many changes it; of these, one in so many takes it away.
const CHANGE_ONE_IN: u64 = 2_000;
const GONE_ONE_IN: u64 = 4;
const OWNERS: u64 = 2_000;
const BUY_MS: std::ops::Range<i64> = 5_000..900_000;
const FIRST_ORDER: i64 = 1_000_000;

const CAMPAIGNS: &[&str] = &["spring", "summer sale", "newsletter", "launch", "partners", "support", "jobs", "events"];
const DOMAINS: &[&str] = &["shop.example.com", "blog.example.net", "example.org", "docs.example.com", "tickets.example.net"];

/// What the topic says of a link.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing yet.
    New,
    /// It is there.
    There,
    /// It was taken away.
    Gone,
}

/// The clicks, and what stands beside them.
pub struct Business {
    clicks: UrlShortener,
    partitions: u32,
    rng: Rng,
    known: Vec<Known>,
    /// Records by the time when they are due, and a number.
    waiting: BTreeMap<(i64, u64), Generated>,
    made: u64,
    orders: i64,
}

impl Business {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        Self {
            clicks: UrlShortener::new(settings),
            partitions: settings.partitions.max(1),
            rng: Rng::new(mix_with(settings.seed, 0x0b)),
            known: vec![Known::New; LINKS as usize],
            waiting: BTreeMap::new(),
            made: 0,
            orders: FIRST_ORDER,
        }
    }

    fn wait(&mut self, topic: &'static str, due_ms: i64, key: Vec<u8>, value: Option<Vec<u8>>) {
        let partition = partition_of(&key, self.partitions);
        self.made += 1;
        self.waiting.insert((due_ms, self.made), Generated { topic, partition, key: Some(key), value, timestamp_ms: due_ms });
    }

    fn link(&mut self, sent: &Sent, now_ms: i64, first: bool) {
        let code = self.clicks.links.code(sent.link).to_vec();
        // A new link was there before its click; a change is of now.
        let before_ms = if first { sent.ts_ms - self.rng.between(1, 1_500) } else { now_ms };
        let changed_ms = before_ms.clamp(now_ms - DISORDER_MS_MAX, now_ms);
        let mut value = Vec::with_capacity(200);
        let mut object = Object::begin(&mut value);
        object.plain("short_code", &code);
        object.int("owner_id", 1 + (mix_with(sent.link, 0x0c) % OWNERS) as i64);
        object.text("campaign", self.rng.pick::<&str>(CAMPAIGNS));
        let domain = *self.rng.pick::<&str>(DOMAINS);
        object.text("domain", domain);
        object.text("long_url", &format!("https://{domain}/p/{}", self.rng.below(1_000_000)));
        object.int("changed_at", changed_ms);
        object.end();
        self.wait(LINKS_TOPIC, now_ms, code, Some(value));
    }

    fn order(&mut self, sent: &Sent, now_ms: i64) {
        let due_ms = now_ms + self.rng.between(BUY_MS.start, BUY_MS.end);
        let cents = 500 + self.rng.below(20_000);
        self.orders += 1;
        let mut value = Vec::with_capacity(160);
        let mut object = Object::begin(&mut value);
        object.int("order_id", self.orders);
        object.int("ts", due_ms - disorder_ms(&mut self.rng));
        object.plain("visitor_id", &sent.visitor);
        object.plain("short_code", &self.clicks.links.code(sent.link));
        let mut amount = Vec::new();
        write_int(&mut amount, (cents / 100) as i64);
        amount.extend([b'.', b'0' + (cents / 10 % 10) as u8, b'0' + (cents % 10) as u8]);
        object.plain("amount", &amount);
        object.end();
        if self.rng.once_in(TWICE_ONE_IN) {
            self.wait(CONVERSIONS_TOPIC, due_ms + 200, sent.visitor.to_vec(), Some(value.clone()));
        }
        self.wait(CONVERSIONS_TOPIC, due_ms, sent.visitor.to_vec(), Some(value));
    }

    /// What follows from a click.
    fn follow(&mut self, sent: &Sent, now_ms: i64) {
        let known = self.known.get(sent.link as usize).copied();
        if known.is_some_and(|known| known != Known::There) {
            self.known[sent.link as usize] = Known::There;
            // What was taken away was not there before.
            self.link(sent, now_ms, known == Some(Known::New));
        } else if known.is_some() && self.rng.once_in(CHANGE_ONE_IN) {
            if self.rng.once_in(GONE_ONE_IN) {
                // Its next click brings it back.
                self.known[sent.link as usize] = Known::Gone;
                let code = self.clicks.links.code(sent.link).to_vec();
                self.wait(LINKS_TOPIC, now_ms, code, None);
            } else {
                self.link(sent, now_ms, false);
            }
        }
        if sent.person && self.rng.once_in(BUYER_ONE_IN) {
            self.order(sent, now_ms);
        }
    }
}

impl Workload for Business {
    fn next_into(&mut self, record: &mut Generated) {
        if let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= self.clicks.upcoming_ms) {
            *record = entry.remove();
            return;
        }
        self.clicks.next_into(record);
        if let Some(sent) = self.clicks.sent.take() {
            self.follow(&sent, record.timestamp_ms);
        }
    }
}

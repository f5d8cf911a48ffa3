//! The clicks of a URL shortener, as its edge sites log them: topic `url.clicks`, one JSON object a record, keyed by short code; what stands
//! beside them is in [`business`].
//!
//! What always holds, of each 100,000 records: about [`ROBOT_SHARE`] are by robots, [`REPEATED`] repeat another record's bytes within half a
//! second, [`LATE`] come minutes to hours late from phones, [`DEFECTIVE`] are out of the catalogue of [`super::defects`]. All others are
//! at most four seconds out of order. An event id is never given twice. See `pipelines/clicks/url_shortener/README.md` for the columns.

pub mod business;
mod links;
mod visitors;

use super::arrivals::{Arrivals, REPEAT_MS_MAX, disorder_ms, lateness_ms};
use super::defects::{Columns, DEFECTS, HUGE, Victim};
use super::json::{Object, write_int, write_text};
use super::math::ln;
use super::rng::Rng;
use super::weighted::Weighted;
use super::{Case, Generated, Settings, Workload, partition_of};
use business::{Business, CONVERSIONS_TOPIC, LINKS_TOPIC};
use links::{LINKS, Links};
use visitors::{Visitor, Visitors};

/// The line of [`super::CASES`].
pub const CASE: Case = Case {
    name: "url_shortener",
    summary: "clicks on short links, their owners and what people buy: Zipf popularity, robots, repeats, late phones, hostile records",
    topics: &[TOPIC, LINKS_TOPIC, CONVERSIONS_TOPIC],
    rate_per_s: 8_333.0,
    demo_rate_per_s: 50.0,
    make: |settings| Box::new(Business::new(settings)),
};

const TOPIC: &str = "url.clicks";

/// Shares, in records per 100,000.
const PARTS: u64 = 100_000;
const DEFECTIVE: u64 = 100;
const LATE: u64 = 300;
const REPEATED: u64 = 500;
const ROBOT_SHARE: u64 = 12_000;
/// Of people's clicks, one in so many is on the link that goes round.
const VIRAL_ONE_IN: u64 = 12;
/// One click in so many is on a code that was never given out, or on something that is no code.
const UNKNOWN_ONE_IN: u64 = 400;
/// In the second quarter of each hour somebody tries codes one after the other, one record in so many.
const SCAN_ONE_IN: u64 = 20;
const QUARTER_MS: i64 = 15 * 60_000;
/// Of the bad and odd records, one in so many is huge, where that is allowed.
const HUGE_ONE_IN: u64 = 200;
/// Event ids count milliseconds from 2020-01-01T00:00Z.
const ID_EPOCH_MS: i64 = 1_577_836_800_000;

const NO_CODES: &[&str] =
    &["robots.txt", "favicon.ico", "wp-login.php", ".env", "../../etc/passwd", "<script>alert(1)</script>", "' OR 1=1 --", "héllo", ""];

/// Most frequent first; the shares fall by Zipf's law. The first is a click without a referrer.
#[rustfmt::skip]
const REFERRERS: &[&str] = &[
    "", "https://t.co/", "https://www.google.com/", "https://l.facebook.com/l.php?u=", "https://www.reddit.com/r/rust/comments/", "https://l.instagram.com/",
    "https://www.youtube.com/", "https://lnkd.in/", "https://news.ycombinator.com/item?id=", "https://www.linkedin.com/feed/", "https://duckduckgo.com/",
    "https://www.bing.com/search?q=", "https://mail.google.com/", "https://web.whatsapp.com/", "https://t.me/", "https://www.tiktok.com/",
    "android-app://com.slack/", "https://outlook.live.com/mail/", "https://bsky.app/", "https://mastodon.social/@news/", "https://discord.com/channels/",
    "https://github.com/", "https://medium.com/p/", "https://WWW.Pinterest.com/pin/", "https://yandex.ru/", "https://www.baidu.com/link?url=",
    "https://intranet.example.com:8443/wiki/", "http://blog.example.net/?p=", "https://stackoverflow.com/q/", "about:blank", "no-url-at-all",
];

const COLUMNS: Columns = Columns { text: "short_code", nullable_text: "referrer", bigint: "event_id", smallint: "status", time: "ts" };

/// The workload.
pub struct UrlShortener {
    partitions: u32,
    defects: bool,
    huge_records: bool,
    rng: Rng,
    arrivals: Arrivals,
    links: Links,
    visitors: Visitors,
    referrers: Weighted,
    /// Arrival of the next record that is no repeat.
    upcoming_ms: i64,
    repeat: Option<Repeat>,
    sequence: i64,
    crawled: u64,
    scanned: u64,
    /// The good record that a defect is made of.
    victim: Vec<u8>,
    scratch: Vec<u8>,
    /// The last good record's click, until it is taken.
    sent: Option<Sent>,
}

/// A click as what follows it sees it.
struct Sent {
    /// [`LINKS`] and above: there is no such link.
    link: u64,
    visitor: [u8; 11],
    ts_ms: i64,
    /// Somebody was sent on, in time.
    person: bool,
}

/// A record that will come again after so many others, or at its time.
struct Repeat {
    record: Generated,
    after_records: u64,
    due_ms: i64,
}

/// What the link's owner would see of a click.
struct Click<'a> {
    ts_ms: i64,
    code: &'a [u8],
    visitor: Visitor,
    status: i64,
    referred: bool,
}

impl UrlShortener {
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let mut arrivals = Arrivals::new(settings.start_ms, settings.rate_per_s);
        let upcoming_ms = arrivals.next_ms(&mut rng);
        Self {
            partitions: settings.partitions.max(1),
            defects: settings.defects,
            huge_records: settings.huge_records,
            arrivals,
            links: Links::new(settings.seed),
            visitors: Visitors::new(settings.seed, settings.rate_per_s, &mut rng),
            referrers: Weighted::zipf(REFERRERS.len() as u32, 0.9),
            rng,
            upcoming_ms,
            repeat: None,
            sequence: 0,
            crawled: 0,
            scanned: 0,
            victim: Vec::new(),
            scratch: Vec::new(),
            sent: None,
        }
    }

    /// The repeat whose turn has come.
    fn due(&mut self) -> Option<Generated> {
        let upcoming_ms = self.upcoming_ms;
        let mut repeat = self.repeat.take_if(|repeat| repeat.after_records == 0 || repeat.due_ms <= upcoming_ms)?;
        repeat.record.timestamp_ms = repeat.due_ms.min(upcoming_ms);
        Some(repeat.record)
    }

    /// Writes the next click and its code; gives whether it is prompt.
    fn click(&mut self, now_ms: i64, kind: u64, code: &mut Vec<u8>, value: &mut Vec<u8>) -> bool {
        let rng = &mut self.rng;
        if now_ms.div_euclid(QUARTER_MS).rem_euclid(4) == 1 && rng.once_in(SCAN_ONE_IN) {
            self.scanned += 1;
            code.extend_from_slice(&self.links.code(LINKS + 1_000_000 + self.scanned));
            let click = Click { ts_ms: now_ms - disorder_ms(rng), code, visitor: self.visitors.scanner(), status: 404, referred: false };
            self.write(&click, now_ms, value);
            return true;
        }
        let late = kind < LATE;
        let robot = kind >= PARTS - ROBOT_SHARE;
        let visitor = match (late, robot) {
            (true, _) => self.visitors.phone(rng),
            (_, true) => self.visitors.robot(),
            _ => self.visitors.person(rng),
        };
        let ts_ms = now_ms - if late { lateness_ms(rng) } else { disorder_ms(rng) };
        let link = match rng.bits() {
            bits if bits.is_multiple_of(UNKNOWN_ONE_IN) => LINKS + bits % 1_000_003,
            // Crawlers go through the links one by one; previews are made of what people pass around.
            bits if robot && bits & 1 << 40 == 0 => {
                self.crawled += 7_919;
                self.crawled % LINKS
            }
            bits if !robot && bits % VIRAL_ONE_IN == 1 => self.links.viral(ts_ms),
            bits => self.links.popular(bits),
        };
        let status = match link {
            LINKS.. => 404,
            _ if self.links.expired(link) => 410,
            _ => 302,
        };
        if status == 404 && rng.once_in(3) {
            code.extend_from_slice(rng.pick(NO_CODES).as_bytes());
        } else {
            code.extend_from_slice(&self.links.code(link));
        }
        self.sent = Some(Sent { link, visitor: visitor.id(), ts_ms, person: status == 302 && !robot && !late });
        self.write(&Click { ts_ms, code, visitor, status, referred: !robot }, now_ms, value);
        !late
    }

    fn write(&mut self, click: &Click<'_>, now_ms: i64, value: &mut Vec<u8>) {
        let Click { visitor, .. } = click;
        let pop = visitor.pop.bytes().fold(0_i64, |sum, letter| sum * 3 + i64::from(letter)) & 31;
        self.sequence += 1;
        let mut object = Object::begin(value);
        object.int("event_id", ((now_ms - ID_EPOCH_MS) << 22) | (pop << 17) | (self.sequence & 0x1_ffff));
        object.int("ts", click.ts_ms);
        if click.code.iter().all(u8::is_ascii_alphanumeric) {
            object.plain("short_code", click.code);
        } else {
            self.scratch.clear();
            write_text(&mut self.scratch, &String::from_utf8_lossy(click.code));
            object.raw("short_code", &self.scratch);
        }
        object.plain("visitor_id", &visitor.id());
        match visitor.country {
            Some(country) => object.plain("country", country.as_bytes()),
            None if visitor.traits & 1 << 40 == 0 => object.null("country"),
            None => {}
        }
        let bits = self.rng.bits();
        match REFERRERS[self.referrers.draw(bits)] {
            _ if !click.referred => {}
            "" if bits.is_multiple_of(8) => object.null("referrer"),
            "" => {}
            referrer => {
                self.scratch.clear();
                self.scratch.extend_from_slice(referrer.as_bytes());
                if bits.is_multiple_of(3) && referrer.ends_with(['/', '=']) {
                    write_int(&mut self.scratch, (bits % 99_991) as i64);
                }
                object.plain("referrer", &self.scratch);
            }
        }
        object.int("status", click.status);
        object.plain("pop", visitor.pop.as_bytes());
        // A cached link is served in under a millisecond; one in a hundred has to be fetched.
        let slow_us = if bits.is_multiple_of(100) { 5_000 + (bits >> 20) as i64 % 40_000 } else { 0 };
        object.int("redirect_us", 180 + slow_us + (-ln(self.rng.unit()) * 420.0) as i64);
        match visitor.traits >> 41 & 0xff {
            0 => {}
            rest => {
                self.scratch.clear();
                visitor.write_ip(&mut self.scratch);
                let mut meta = object.object("meta");
                meta.plain("ip", &self.scratch);
                match rest {
                    1 => meta.null("ua"),
                    _ => meta.plain("ua", visitor.agent.as_bytes()),
                }
                meta.end();
            }
        }
        object.end();
    }

    /// A record out of the catalogue; half of them have lost their key.
    fn defect(&mut self, now_ms: i64, kind: u64, record: &mut Generated, mut code: Vec<u8>, mut value: Vec<u8>) {
        let mut victim = std::mem::take(&mut self.victim);
        victim.clear();
        self.click(now_ms, PARTS / 2, &mut code, &mut victim);
        self.sent = None;
        let rng = &mut self.rng;
        let defect = if self.huge_records && rng.once_in(HUGE_ONE_IN) { &HUGE } else { rng.pick(DEFECTS) };
        let written = (defect.write)(&Victim { json: &victim, now_ms, columns: COLUMNS }, rng, &mut value);
        self.victim = victim;
        record.value = written.then_some(value);
        if kind.is_multiple_of(2) {
            record.partition = rng.below(u64::from(self.partitions)) as u32;
            record.key = None;
        } else {
            record.partition = partition_of(&code, self.partitions);
            record.key = Some(code);
        }
    }
}

impl Workload for UrlShortener {
    fn next_into(&mut self, record: &mut Generated) {
        if let Some(repeated) = self.due() {
            *record = repeated;
            return;
        }
        let now_ms = self.upcoming_ms;
        self.upcoming_ms = self.arrivals.next_ms(&mut self.rng);
        if let Some(repeat) = &mut self.repeat {
            repeat.after_records -= 1;
        }
        let (mut code, mut value) = (record.key.take().unwrap_or_default(), record.value.take().unwrap_or_default());
        code.clear();
        value.clear();
        record.topic = TOPIC;
        record.timestamp_ms = now_ms;
        let kind = self.rng.below(PARTS);
        // Late, then defective, then repeated, then people; robots at the upper end.
        if self.defects && (LATE..LATE + DEFECTIVE).contains(&kind) {
            return self.defect(now_ms, kind, record, code, value);
        }
        value.reserve(512);
        let prompt = self.click(now_ms, kind, &mut code, &mut value);
        record.partition = partition_of(&code, self.partitions);
        (record.key, record.value) = (Some(code), Some(value));
        if prompt && self.repeat.is_none() && self.rng.below(PARTS) < REPEATED {
            let after_records = 1 + self.rng.below(16);
            self.repeat = Some(Repeat { record: record.clone(), after_records, due_ms: now_ms + REPEAT_MS_MAX });
        }
    }
}

#[cfg(test)]
#[path = "url_shortener_tests.rs"]
mod tests;

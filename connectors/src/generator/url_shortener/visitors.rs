//! Who clicks: people who come in sittings, and robots that click fast and steadily.
//!
//! What always holds: a visitor's traits (country, user agent, address) are functions of the seed and the visitor's number, so a visitor
//! who comes back is the same visitor. Nothing is kept per visitor, only who sits there now.

use super::super::agents::{Agent, Device, PEOPLE, ROBOTS};
use super::super::rng::{Rng, mix_with, scale};
use super::super::weighted::Weighted;

/// Seconds between two clicks of a sitting, on average: far below the 30 minutes that end a session.
const THINK_S: f64 = 45.0;
/// One click in so many ends its sitting.
const LAST_CLICK_ONE_IN: u64 = 4;
/// People per click a second: with sittings of four clicks each comes about once in an hour and a half.
const PEOPLE_PER_RATE: f64 = 1_500.0;
/// One sitting in so many is by a regular, who is one of the first fifth.
const REGULAR_ONE_IN: u64 = 4;
const SITTING_MAX: usize = 1 << 19;

/// Robots have numbers from here on; people stay below.
const ROBOT_BASE: u64 = 1 << 36;
/// Robots that send a browser's user agent and click several times as fast as those that do not hide.
const HIDDEN: usize = 2;
const HIDDEN_TURNS: usize = 6;

/// Country, its relative frequency, the edge site that serves it.
#[rustfmt::skip]
const COUNTRIES: &[(&str, u32, &str)] = &[
    ("US", 260, "iad"), ("IN", 130, "bom"), ("BR", 70, "gru"), ("GB", 65, "lhr"), ("DE", 60, "fra"), ("JP", 55, "nrt"), ("FR", 45, "cdg"), ("ID", 45, "sin"),
    ("CA", 35, "ord"), ("MX", 30, "sfo"), ("ES", 25, "cdg"), ("IT", 25, "fra"), ("NL", 22, "ams"), ("PL", 20, "fra"), ("TR", 20, "fra"), ("AU", 20, "syd"),
    ("PH", 18, "sin"), ("VN", 16, "sin"), ("KR", 16, "nrt"), ("NG", 14, "jnb"), ("ZA", 10, "jnb"), ("AR", 10, "gru"), ("SE", 9, "ams"), ("CH", 8, "fra"),
    ("AT", 7, "fra"), ("EG", 7, "fra"), ("NZ", 4, "syd"), ("IE", 4, "lhr"), ("IS", 1, "lhr"),
];

/// One who clicks.
#[derive(Clone, Copy, Debug)]
pub struct Visitor {
    pub number: u64,
    /// None where the address is in no country.
    pub country: Option<&'static str>,
    pub pop: &'static str,
    pub agent: &'static str,
    pub device: Device,
    /// Random bits that belong to the visitor, for the address and the like.
    pub traits: u64,
}

/// Everyone who may come.
pub struct Visitors {
    seed: u64,
    people: u64,
    /// Numbers of those who sit there now. Each click is by one of them, any with equal chance, so gaps within a sitting are exponential.
    sitting: Vec<u32>,
    agents: Weighted,
    countries: Weighted,
    /// The robots' turns, so that each clicks at a steady pace.
    turns: Vec<u8>,
    turn: usize,
}

impl Visitors {
    /// Visitors who make `clicks_per_s` clicks a second.
    #[must_use]
    pub fn new(seed: u64, clicks_per_s: f64, rng: &mut Rng) -> Self {
        let people = (clicks_per_s * PEOPLE_PER_RATE).clamp(2_000.0, f64::from(u32::MAX)) as u64;
        let sitting = ((clicks_per_s * THINK_S) as usize).clamp(8, SITTING_MAX);
        let weights: Vec<f64> = PEOPLE.iter().map(|agent| f64::from(agent.weight)).collect();
        let countries: Vec<f64> = COUNTRIES.iter().map(|(_, weight, _)| f64::from(*weight)).collect();
        let mut visitors = Self {
            seed,
            people,
            sitting: Vec::with_capacity(sitting),
            agents: Weighted::new(&weights),
            countries: Weighted::new(&countries),
            turns: turns(),
            turn: 0,
        };
        for _ in 0..sitting {
            let number = visitors.arrive(rng);
            visitors.sitting.push(number);
        }
        visitors
    }

    fn arrive(&self, rng: &mut Rng) -> u32 {
        let among = if rng.once_in(REGULAR_ONE_IN) { self.people / 5 } else { self.people };
        rng.below(among) as u32
    }

    /// The person who makes the next click.
    pub fn person(&mut self, rng: &mut Rng) -> Visitor {
        let bits = rng.bits();
        let seat = scale(bits, self.sitting.len() as u64) as usize;
        let number = self.sitting[seat];
        // The low bits are independent of the seat, which took the high ones.
        if bits.is_multiple_of(LAST_CLICK_ONE_IN) {
            self.sitting[seat] = self.arrive(rng);
        }
        self.traits(u64::from(number), None)
    }

    /// A person with a phone, who need not sit there now: the one whose clicks arrive late.
    pub fn phone(&mut self, rng: &mut Rng) -> Visitor {
        loop {
            let visitor = self.traits(rng.below(self.people), None);
            if visitor.device == Device::Phone {
                return visitor;
            }
        }
    }

    /// The robot whose turn it is.
    pub fn robot(&mut self) -> Visitor {
        let robot = usize::from(self.turns[self.turn]);
        self.turn = (self.turn + 1) % self.turns.len();
        let agent = match robot.checked_sub(ROBOTS.len()) {
            Some(hidden) => PEOPLE[hidden],
            None => said(ROBOTS[robot].1),
        };
        self.traits(ROBOT_BASE + robot as u64, Some(agent))
    }

    /// The robot that tries one code after the other.
    pub fn scanner(&self) -> Visitor {
        self.traits(ROBOT_BASE + 0xffff, Some(said("python-requests/2.32.3")))
    }

    fn traits(&self, number: u64, agent: Option<Agent>) -> Visitor {
        let agent = agent.unwrap_or_else(|| PEOPLE[self.agents.draw(mix_with(self.seed ^ number, 1))]);
        let (country, _, pop) = COUNTRIES[self.countries.draw(mix_with(self.seed ^ number, 2))];
        let traits = mix_with(self.seed ^ number, 3);
        Visitor { number, country: (!traits.is_multiple_of(50)).then_some(country), pop, agent: agent.text, device: agent.device, traits }
    }
}

fn said(text: &'static str) -> Agent {
    Agent { device: Device::Other, weight: 1, text }
}

/// Each robot as often as its weight says, evenly spread over the round.
fn turns() -> Vec<u8> {
    let hidden = (0..HIDDEN).map(|hidden| (ROBOTS.len() + hidden, HIDDEN_TURNS * 7));
    let robots: Vec<(usize, usize)> =
        ROBOTS.iter().enumerate().map(|(robot, (weight, _))| (robot, *weight as usize)).chain(hidden).collect();
    let mut at: Vec<(f64, u8)> =
        robots.iter().flat_map(|(robot, turns)| (0..*turns).map(|turn| ((turn as f64 + 0.5) / *turns as f64, *robot as u8))).collect();
    at.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    at.into_iter().map(|(_, robot)| robot).collect()
}

impl Visitor {
    /// `v` and ten hexadecimal digits, different for each number below 2^40.
    #[must_use]
    pub fn id(&self) -> [u8; 11] {
        let mut id = *b"v0000000000";
        let mut rest = self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) & ((1 << 40) - 1);
        for digit in id.iter_mut().skip(1).rev() {
            *digit = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        id
    }

    /// An address from the ranges kept for tests and documents (RFC 2544, RFC 3849), in digits.
    pub fn write_ip(&self, out: &mut Vec<u8>) {
        let [a, b, c, d, ..] = self.traits.to_le_bytes();
        if d < 26 {
            out.extend_from_slice(b"2001:db8:");
            out.extend([a >> 4, a & 15, b >> 4, b & 15].map(hex));
            out.extend_from_slice(b"::");
            // A group has no leading zeros.
            out.extend([c % 15 + 1, c & 15].map(hex));
        } else {
            out.extend_from_slice(b"198.1");
            out.push(b'8' + (a & 1));
            for part in [b, c] {
                out.push(b'.');
                super::super::json::write_int(out, i64::from(part));
            }
        }
    }
}

fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble & 15)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_who_comes_back_is_the_same() {
        let mut rng = Rng::new(1);
        let mut visitors = Visitors::new(1, 10.0, &mut rng);
        let mut seen = std::collections::BTreeMap::new();
        let mut clicks = 0;
        for _ in 0..20_000 {
            let visitor = visitors.person(&mut rng);
            let traits = (visitor.agent, visitor.country, visitor.traits);
            assert_eq!(*seen.entry(visitor.id()).or_insert(traits), traits);
            clicks += 1;
        }
        assert!(seen.len() * 2 < clicks, "{} visitors", seen.len());
    }

    #[test]
    fn addresses_are_addresses() {
        let mut rng = Rng::new(2);
        let mut visitors = Visitors::new(2, 10.0, &mut rng);
        for _ in 0..5_000 {
            let mut out = Vec::new();
            visitors.person(&mut rng).write_ip(&mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.parse::<std::net::IpAddr>().is_ok(), "{text}");
        }
    }

    #[test]
    fn robots_keep_a_steady_pace() {
        let mut rng = Rng::new(3);
        let mut visitors = Visitors::new(3, 10.0, &mut rng);
        let round = visitors.turns.len();
        let ids: Vec<u64> = (0..round).map(|_| visitors.robot().number - ROBOT_BASE).collect();
        let google: Vec<usize> = ids.iter().enumerate().filter(|(_, id)| **id == 0).map(|(at, _)| at).collect();
        assert!(google.windows(2).all(|pair| (3..16).contains(&(pair[1] - pair[0]))), "{google:?}");
        assert!(ids.contains(&(ROBOTS.len() as u64)));
    }
}

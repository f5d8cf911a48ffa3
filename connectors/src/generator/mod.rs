//! Seeded workloads: endless streams of records for demos, tests and benchmarks, one workload per case study.
//!
//! What always holds: a workload's records are a function of its [`Settings`] alone. The same settings give the same bytes, record by
//! record, on every machine and in every build: the random numbers ([`rng`]), the logarithm ([`math`]) and the JSON text ([`json`]) are
//! our own, so no library's next version can move them. A test pins a checksum of each case.
//!
//! Time is made up too. A workload starts at `start_ms` and its clock advances with its records, so a day of events can be produced in
//! seconds. No record holds a line feed, so one record is always one line of NDJSON.
//!
//! Not here: sending the records anywhere (the `generator` source, `tidemill generate` and `tidemill demo` call this).

pub mod agents;
pub mod arrivals;
pub mod defects;
pub mod json;
pub mod math;
pub mod nexmark;
pub mod rng;
pub mod url_shortener;
pub mod weighted;

/// One record, to be sent as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generated {
    pub topic: &'static str,
    /// Below `Settings::partitions`.
    pub partition: u32,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// The record's own timestamp: when it arrived. Never before the event time in the value, but for the hostile clocks of [`defects`].
    pub timestamp_ms: i64,
}

/// An endless stream of records.
pub trait Workload: Send {
    /// Writes the next record over `record`, reusing its buffers.
    fn next_into(&mut self, record: &mut Generated);

    /// The next record in buffers of its own.
    fn next(&mut self) -> Generated {
        let mut record = Generated::default();
        self.next_into(&mut record);
        record
    }
}

/// What a workload's records depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub seed: u64,
    /// Partitions of each of the case's topics; 0 is taken for 1.
    pub partitions: u32,
    /// Records per second of event time, on average.
    pub rate_per_s: f64,
    /// Where event time starts: milliseconds since 1970-01-01T00:00Z.
    pub start_ms: i64,
    /// Whether malformed and hostile records are mixed in (see [`defects`]).
    pub defects: bool,
    /// Whether a few of those are larger than 2 MB. Brokers refuse such records unless `max.message.bytes` was raised.
    pub huge_records: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seed: 1, partitions: 4, rate_per_s: 1_000.0, start_ms: START_MS, defects: true, huge_records: false }
    }
}

/// 2026-01-01T00:00:00Z, where event time starts unless told otherwise.
pub const START_MS: i64 = 1_767_225_600_000;

/// A case study that can be generated.
pub struct Case {
    /// The folder's name under `pipelines/<family>/`.
    pub name: &'static str,
    pub summary: &'static str,
    pub topics: &'static [&'static str],
    /// The case's own average rate, in records per second of event time.
    pub rate_per_s: f64,
    /// A rate at which a few hundred thousand records fill a few hours of event time, so that every window of the case closes.
    pub demo_rate_per_s: f64,
    pub make: fn(&Settings) -> Box<dyn Workload>,
}

/// Every case of this build. To add one: write its module, add one line here.
pub static CASES: &[Case] = &[url_shortener::CASE, nexmark::CASE];

/// The case of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// The partition of a key: FNV-1a over its bytes. A producer that hashes otherwise places keys otherwise; no result depends on it.
#[must_use]
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    ((hash >> 32) % u64::from(partitions.max(1))) as u32
}

//! Whole runs on one thread under a seed: crashes, failing writes, restarts with other worker counts, several bounded runs. What
//! comes out is compared with a model that reads the log once; the accounting must balance.
//!
//! `TIDEMILL_SEEDS=10000 cargo test --test suite simulation -- --nocapture` runs more seeds; `TIDEMILL_SEED=7` runs one again.

mod faults;
mod flows;
mod joins;
mod model;

use tidemill_engine::sim::doubles::Log;
use tidemill_engine::sim::rng::Rng;
use tidemill_engine::sim::{Sabotage, Simulation};

use flows::{KINDS, Kind, Parts, Shape, flow, log_of, records};
use model::{found, model};

/// What a seed came to: crashes and steps.
type Tried = Result<(u32, u64), String>;

/// What is broken on purpose.
#[derive(Default)]
struct Fault {
    parts: Option<fn(&mut Parts)>,
    sabotage: Option<Sabotage>,
}

fn try_seed(seed: u64, kind: Kind, fault: &Fault) -> Tried {
    let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9).wrapping_add(17));
    let shape = Shape::draw(&mut rng, kind);
    let records = records(&mut rng, shape);
    let mut parts = Parts::right(shape);
    if let Some(spoil) = fault.parts {
        spoil(&mut parts);
    }
    let make = |log: &Log| flow(log, shape, &parts);
    let simulation = Simulation {
        seed,
        flow: &make,
        log: log_of(&records),
        workers: &[1, 2, 3, 4],
        crashes_max: 6,
        runs: 1 + rng.below(3) as u32,
        sabotage: fault.sabotage,
    };
    let outcome = simulation.run().map_err(|error| error.to_string())?;
    let (expected, found) = (model(&records, shape), found(&outcome)?);
    if found != expected {
        let lost: Vec<_> = expected.rows.difference(&found.rows).take(3).collect();
        let extra: Vec<_> = found.rows.difference(&expected.rows).take(3).collect();
        let late: Vec<_> = expected.late.symmetric_difference(&found.late).take(3).collect();
        return Err(format!("{shape:?}: lost {lost:?}, extra {extra:?}, late {late:?}"));
    }
    let total: usize = records.iter().map(Vec::len).sum();
    let dead = records.iter().flatten().filter(|record| record.is_none()).count();
    for account in &outcome.manifest.accounts {
        let counts = account.counts;
        // Everything is published at the end, so nothing is held, but for rows that may yet move up among the first, or be matched.
        let held = if matches!(shape.kind, Kind::Top | Kind::AsOf) { counts.held.max(0) } else { 0 };
        if (counts.imbalance(), counts.held, counts.rows_in, counts.dead) != (0, held, total as i64, dead as i64) {
            return Err(format!("{shape:?}: {total} records, {dead} of them dead, but {counts:?}"));
        }
    }
    Ok((outcome.crashes, outcome.steps))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Every kind takes its turn.
fn kind_of(seed: u64) -> Kind {
    KINDS[(seed % KINDS.len() as u64) as usize]
}

#[test]
fn tables_late_events_and_accounts_survive_crashes_on_every_seed() {
    let again = |seed: u64, wrong: String| -> ! { panic!("TIDEMILL_SEED={seed} cargo test --test suite simulation\n{wrong}") };
    if let Some(seed) = number("TIDEMILL_SEED") {
        try_seed(seed, kind_of(seed), &Fault::default()).unwrap_or_else(|wrong| again(seed, wrong));
        return;
    }
    let (mut crashes, mut steps) = (0, 0);
    let seeds = number("TIDEMILL_SEEDS").unwrap_or(1_000);
    for seed in 0..seeds {
        let (crashed, stepped) = try_seed(seed, kind_of(seed), &Fault::default()).unwrap_or_else(|wrong| again(seed, wrong));
        crashes += u64::from(crashed);
        steps += stepped;
    }
    println!("{seeds} seeds, {crashes} crashes, {steps} steps");
    assert!(crashes > seeds / 4, "only {crashes} crashes in {seeds} seeds: the simulation does not test recovery");
}

//! Joins against a naive model: all pairs of one log that is read as both sides, and what is left without a match; derived rows that are taken
//! back; a join over a join.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, TimestampMicrosecondArray, UInt32Array};
use arrow::datatypes::Int64Type;
use tidemill_engine::account::NodeCounts;
use tidemill_engine::rows::Tokens;
use tidemill_engine::state::Scalars;

use super::*;
use crate::testing::*;

const KINDS: [Kind; 6] = [Kind::Inner, Kind::Left, Kind::Right, Kind::Full, Kind::Semi, Kind::Anti];

#[derive(Debug, Clone, Copy)]
struct Case {
    kind: Kind,
    low: i64,
    high: i64,
    lateness: i64,
    /// Only pairs of which the left value is less.
    less: bool,
    /// The key is joined on; else every row may match every other.
    keyed: bool,
}

/// `left value < right value`, over left value, right name, right value.
struct Less;

impl Expression for Less {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let [left, right] = [0, 2].map(|index| batch.column(index).as_primitive::<Int64Type>());
        Ok(Arc::new(left.iter().zip(right).map(|(left, right)| Some(left? < right?)).collect::<BooleanArray>()))
    }

    fn text(&self) -> &str {
        "l.value < r.value"
    }
}

/// Left: value | key | ts. Right: name, value | key | ts.
fn plan(case: &Case) -> JoinPlan {
    let log = log_schema();
    let of =
        |indexes: &[usize]| -> SchemaRef { Arc::new(Schema::new(indexes.iter().map(|at| log.field(*at).clone()).collect::<Vec<_>>())) };
    let side = |schema, width| SidePlan { schema, width, names: None, windowed: false };
    let sides = match case.keyed {
        true => [side(of(&[3, 0, 2]), 1), side(of(&[1, 3, 0, 2]), 2)],
        false => [side(of(&[3, 2]), 1), side(of(&[1, 3, 2]), 2)],
    };
    JoinPlan {
        kind: case.kind,
        sides,
        keys: usize::from(case.keyed),
        low_us: case.low,
        high_us: case.high,
        condition: case.less.then(|| Arc::new(Less) as Arc<dyn Expression>),
        lateness_us: case.lateness,
        sources: vec![0],
        source_names: vec![(0, "log".to_owned())],
    }
}

/// Records with a name are right rows, the others left ones.
fn side_of(rows: &Rows, side: usize, keyed: bool) -> Rows {
    let named = rows.batch.column(1);
    let at: UInt32Array = (0..rows.len() as u32).filter(|row| named.is_valid(*row as usize) == (side == RIGHT)).collect();
    let rows = rows.take(&at).expect("takes");
    let mut indexes = if side == RIGHT { vec![1, 3] } else { vec![3] };
    indexes.extend(keyed.then_some(0));
    indexes.push(2);
    let batch = rows.batch.project(&indexes).expect("columns");
    let key: Vec<ArrayRef> = keyed.then(|| Arc::clone(rows.batch.column(0))).into_iter().collect();
    let hashes = hash_columns(&key, rows.len()).expect("hashes");
    Rows { hashes: Some(hashes.into()), ..rows.with_batch(batch) }
}

/// Reads the log as both sides and holds the watermark back, as the planner does with exchanges and `HoldBack`.
struct Both {
    case: Case,
    join: Join,
}

impl Operator for Both {
    fn name(&self) -> &'static str {
        "both"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        for side in [LEFT, RIGHT] {
            self.join.on_rows(side, side_of(&rows, side, self.case.keyed), out)?;
        }
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.join.on_tick(watermark.map(|watermark| minus(watermark, self.case.lateness)), out)
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.join.on_end(out)
    }

    fn tables(&self) -> Vec<TableSpec> {
        self.join.tables()
    }

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        self.join.changes(table, full)
    }

    fn load(&mut self, table: usize, rows: &RecordBatch) -> Result<()> {
        self.join.load(table, rows)
    }

    fn load_scalars(&mut self, scalars: &Scalars) {
        self.join.load_scalars(scalars);
    }
}

fn model(case: &Case, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
    let is_late =
        |record: &&Record| record.watermark != i64::MIN && record.time.is_some_and(|time| time + case.lateness < record.watermark);
    let late = log.iter().filter(is_late).map(|record| (record.partition, record.offset, None)).collect();
    let (left, right): (Vec<&Record>, Vec<&Record>) =
        log.iter().filter(|record| !is_late(record)).partition(|record| record.name.is_none());
    let matches = |left: &Record, right: &Record| {
        let near = left.time.zip(right.time).is_some_and(|(left, right)| (case.low..=case.high).contains(&(right - left)));
        let equal = !case.keyed || (left.key.is_some() && left.key == right.key);
        let less = left.value.zip(right.value).is_some_and(|(left, right)| left < right);
        near && equal && (less || !case.less)
    };
    let name = |record: &Record| format!("{:?}|{}|{}", "log", record.partition, record.offset);
    let of_left = |record: &Record| text(record.value);
    let of_right = |record: &Record| format!("{:?}|{}", record.name.clone().unwrap_or_default(), text(record.value));
    // Alone, once nothing in time can match it; at once if nothing ever could.
    let over = |record: &Record, reach: i64| match record.time {
        Some(time) if !case.keyed || record.key.is_some() => published(time + reach + case.lateness + 1),
        _ => true,
    };
    let mut results = Results::new();
    let mut add = |line: String| *results.entry(line).or_default() += 1;
    for row in &left {
        let found: Vec<&&Record> = right.iter().filter(|other| matches(row, other)).collect();
        match case.kind {
            Kind::Semi if !found.is_empty() => add(format!("{}|{}", of_left(row), name(row))),
            Kind::Anti if found.is_empty() && over(row, case.high) => add(format!("{}|{}", of_left(row), name(row))),
            Kind::Semi | Kind::Anti => {}
            _ => found.iter().for_each(|other| add(format!("{}|{}|{}|{}", of_left(row), of_right(other), name(row), name(other)))),
        }
        if matches!(case.kind, Kind::Left | Kind::Full) && found.is_empty() && over(row, case.high) {
            add(format!("{}|NULL|NULL|{}|NULL|NULL|NULL", of_left(row), name(row)));
        }
    }
    for row in &right {
        let lonely = !left.iter().any(|other| matches(other, row)) && over(row, -case.low);
        if matches!(case.kind, Kind::Right | Kind::Full) && lonely {
            add(format!("NULL|{}|NULL|NULL|NULL|{}", of_right(row), name(row)));
        }
    }
    (results, late)
}

/// Gives rows the hash that they are exchanged by.
struct Keyed(bool);

impl Operator for Keyed {
    fn name(&self) -> &'static str {
        "keyed"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let key: Vec<ArrayRef> = self.0.then(|| Arc::clone(rows.batch.column(0))).into_iter().collect();
        let hashes = hash_columns(&key, rows.len())?;
        out.emit(Rows { hashes: Some(hashes.into()), ..rows });
        Ok(())
    }
}

fn run(case: Case, seeds: u64) {
    for seed in 0..seeds {
        drive(
            &Subject {
                name: &format!("{case:?}"),
                make: &|workers| {
                    let join = || Join::new(plan(&case)).expect("a plan");
                    (
                        (0..workers).map(|_| Box::new(Keyed(case.keyed)) as Box<dyn Operator>).collect(),
                        (0..workers).map(|_| Box::new(Both { case, join: join() }) as Box<dyn Operator>).collect(),
                    )
                },
                workers: &[1, 2, 4],
                holds_none: false,
                publishes: Publishes::AtWatermark,
                model: &|log, published| model(&case, log, published),
            },
            seed,
        );
    }
}

#[test]
fn any_run_equals_the_model() {
    for kind in KINDS {
        for (low, high) in [(-5, 10), (0, 0), (3, 9), (-20, -4), (-60, 60)] {
            for lateness in [0, 9] {
                run(Case { kind, low, high, lateness, less: false, keyed: true }, 3 * SEEDS);
                run(Case { kind, low, high, lateness, less: true, keyed: true }, 2 * SEEDS);
            }
        }
    }
}

#[test]
fn a_join_without_keys_equals_the_model() {
    for kind in KINDS {
        run(Case { kind, low: -2, high: 3, lateness: 4, less: true, keyed: false }, 4 * SEEDS);
    }
}

/// A derived row: key, value, time.
type Derived = (i64, i64, i64);

/// value | key | ts, of rows named by their value.
fn derived_plan(kind: Kind, sources: Vec<SourceId>) -> JoinPlan {
    let int = |name: &str| Field::new(name, DataType::Int64, true);
    let schema: SchemaRef = Arc::new(Schema::new(vec![int("value"), int("key"), Field::new("ts", timestamp(), true)]));
    let side = || SidePlan { schema: Arc::clone(&schema), width: 1, names: Some(vec![0]), windowed: false };
    JoinPlan {
        kind,
        sides: [side(), side()],
        keys: 1,
        low_us: -4,
        high_us: 6,
        condition: None,
        lateness_us: 0,
        sources,
        source_names: vec![(0, "log".to_owned())],
    }
}

fn derived(changes: &[(Derived, i64, i64)], schema: SchemaRef) -> Rows {
    let ints = |of: &dyn Fn(&Derived) -> i64| Arc::new(Int64Array::from_iter_values(changes.iter().map(|(row, ..)| of(row)))) as ArrayRef;
    let times = Arc::new(TimestampMicrosecondArray::from_iter_values(changes.iter().map(|(row, ..)| row.2)));
    let batch = RecordBatch::try_new(schema, vec![ints(&|row| row.1), ints(&|row| row.0), times]).expect("one length");
    let tokens = Tokens::Counts(vec![(0, changes.iter().map(|(.., tokens)| *tokens).collect())]);
    let hashes = hash_columns(&[ints(&|row| row.0)], changes.len()).expect("hashes");
    let rows = Rows::derived(batch, Some(changes.iter().map(|(_, weight, _)| *weight).collect()), tokens);
    Rows { hashes: Some(hashes.into()), ..rows }
}

/// What the join of these rows is, once all that is open has been published.
fn derived_model(kind: Kind, rows: &[BTreeMap<Derived, i64>; 2]) -> Results {
    let mut results = Results::new();
    let matches = |left: &Derived, right: &Derived| left.0 == right.0 && (-4..=6).contains(&(right.2 - left.2));
    let mut add = |line: String, count: i64| *results.entry(line).or_default() += count;
    let [left_rows, right_rows] = rows;
    for (left, count) in left_rows {
        let found: Vec<_> = right_rows.iter().filter(|(right, _)| matches(left, right)).collect();
        match kind {
            Kind::Semi | Kind::Anti if found.is_empty() == (kind == Kind::Anti) => add(format!("{}|{}", left.1, left.1), *count),
            Kind::Semi | Kind::Anti => {}
            _ => found.iter().for_each(|(right, more)| add(format!("{0}|{1}|{0}|{1}", left.1, right.1), count * **more)),
        }
        if kind.pairs() && kind.keeps(LEFT) && found.is_empty() {
            add(format!("{0}|NULL|{0}|NULL", left.1), *count);
        }
    }
    for (right, count) in right_rows.iter().filter(|(right, _)| !left_rows.keys().any(|left| matches(left, right))) {
        if kind.pairs() && kind.keeps(RIGHT) {
            add(format!("NULL|{0}|NULL|{0}", right.1), *count);
        }
    }
    results
}

#[test]
fn rows_that_are_taken_back_leave_nothing_behind() {
    for (seed, kind) in (0..40).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
        let mut rng = Rng(seed);
        let plan = derived_plan(kind, vec![0]);
        let schema = Arc::clone(&plan.sides[0].schema);
        let make = |workers: usize| -> Vec<Box<dyn Operator>> {
            (0..workers).map(|_| Box::new(Join::new(plan.clone()).expect("a plan")) as Box<dyn Operator>).collect()
        };
        let mut workers = [1, 2, 4][rng.below(3) as usize];
        let mut instances = make(workers);
        let mut outputs: Vec<Output> = (0..workers).map(|_| Output::default()).collect();
        let (mut store, mut before, mut collected) = (Store::default(), NodeCounts::default(), Collected::default());
        let mut rows: [BTreeMap<Derived, i64>; 2] = Default::default();
        let (mut clock, mut came) = (0, 0);
        for tick in 0..60 {
            let at = format!("seed {seed} {kind:?} tick {tick} workers {workers}");
            for side in [LEFT, RIGHT] {
                let mut changes = Vec::new();
                for _ in 0..rng.below(6) {
                    let tokens = rng.below(3) as i64;
                    // Rows behind the watermark are final.
                    let open: Vec<Derived> = rows[side].keys().filter(|row| row.2 >= clock).copied().collect();
                    let gone = (rng.one_in(3) && !open.is_empty()).then(|| open[rng.below(open.len() as u64) as usize]);
                    let (row, weight) = match gone {
                        Some(row) => (row, -1),
                        None => ((rng.below(3) as i64, rng.below(5) as i64, clock + rng.below(15) as i64), 1),
                    };
                    let count = rows[side].entry(row).or_default();
                    *count += weight;
                    if *count == 0 {
                        rows[side].remove(&row);
                    }
                    changes.push((row, weight, tokens));
                    came += tokens;
                }
                let changes = derived(&changes, Arc::clone(&schema));
                for (worker, part) in split(&changes, workers).into_iter().enumerate() {
                    instances[worker].on_rows(side, part, &mut outputs[worker]).expect("takes rows");
                }
            }
            clock += rng.below(5) as i64;
            let end = rng.one_in(5);
            for (instance, out) in instances.iter_mut().zip(&mut outputs) {
                instance.on_tick((clock > 0).then_some(clock), out).expect("ticks");
                if end {
                    instance.on_end(out).expect("ends");
                }
                collected.take(out).iter().for_each(|rows| collected.add(rows));
            }
            if end {
                assert_eq!(collected.net, derived_model(kind, &rows), "{at}");
            }
            let sum = totals(outputs.iter().map(|output| &output.counts).chain([&before]));
            assert_eq!(came, collected.out + sum.out + sum.filtered + sum.held, "{at}");
            if rng.one_in(4) {
                store.cut(&mut instances);
                if rng.one_in(2) {
                    outputs.iter().for_each(|output| before.add(&output.counts));
                    workers = [1, 2, 4][rng.below(3) as usize];
                    instances = make(workers);
                    outputs = (0..workers).map(|_| Output::default()).collect();
                    store.restore(&mut instances);
                }
            }
        }
        for (instance, out) in instances.iter_mut().zip(&mut outputs) {
            instance.on_tick(Some(i64::MAX), out).expect("ticks");
            collected.take(out).iter().for_each(|rows| collected.add(rows));
            (0..2).for_each(|table| drop(instance.changes(table, false).expect("changes")));
        }
        assert_eq!(collected.net, derived_model(kind, &rows), "seed {seed} {kind:?}");
        let sum = totals(outputs.iter().map(|output| &output.counts).chain([&before]));
        assert_eq!((sum.held, came), (0, collected.out + sum.out + sum.filtered), "seed {seed} {kind:?}: nothing is held");
    }
}

#[test]
fn rows_and_keys_that_are_over_are_forgotten() {
    let case = Case { kind: Kind::Inner, low: 0, high: 10, lateness: 0, less: false, keyed: true };
    let mut both = Both { case, join: Join::new(plan(&case)).expect("a plan") };
    let mut out = Output::default();
    let record = |offset: i64, name: Option<&str>| Record {
        partition: 0,
        offset,
        key: Some(offset / 2),
        name: name.map(str::to_owned),
        time: Some(offset),
        value: Some(offset),
        watermark: i64::MIN,
    };
    let records: Vec<Record> = (0..1000).map(|n| record(n, (n % 2 == 1).then_some("r"))).collect();
    both.on_rows(0, source_rows(&records), &mut out).expect("takes");
    assert_eq!(out.rows.iter().map(Rows::len).sum::<usize>(), 500);
    both.on_tick(Some(900), &mut out).expect("ticks");
    assert_eq!(out.watermark, Some(889), "a pair may come as late as the span reaches, and its time is told about a tick later");
    (0..2).for_each(|table| drop(both.changes(table, false).expect("changes")));
    assert_eq!(both.join.groups.used(), 55, "left rows from 890 on, right rows from 900 on");
    both.on_tick(Some(5000), &mut out).expect("ticks");
    (0..2).for_each(|table| drop(both.changes(table, false).expect("changes")));
    assert_eq!(both.join.groups.used(), 0);
    assert_eq!(out.counts.of(0).held, 0);
}

#[test]
fn what_one_tick_may_not_publish_holds_the_watermark() {
    let case = Case { kind: Kind::Left, low: 0, high: 5, lateness: 0, less: false, keyed: true };
    let mut join = Join::new(plan(&case)).expect("a plan");
    join.rows_per_tick_max = 2;
    let record = |offset: i64| Record {
        partition: 0,
        offset,
        key: Some(offset),
        name: None,
        time: Some(offset * 10),
        value: None,
        watermark: i64::MIN,
    };
    let mut out = Output::default();
    let rows = source_rows(&(0..5).map(record).collect::<Vec<_>>());
    join.on_rows(LEFT, side_of(&rows, LEFT, true), &mut out).expect("takes");
    let mut seen = Vec::new();
    for _ in 0..4 {
        join.on_tick(Some(1000), &mut out).expect("ticks");
        seen.push((std::mem::take(&mut out.rows).iter().map(Rows::len).sum::<usize>(), out.watermark));
    }
    assert_eq!(seen, [(2, Some(19)), (2, Some(39)), (1, Some(994)), (0, Some(994))]);
}

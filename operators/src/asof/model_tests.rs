//! As-of joins against a naive model: for each row the greatest version at or before its time, over one log that is read as both sides.

use arrow::array::{Array, BooleanArray, UInt32Array};
use arrow::datatypes::{DataType, Schema};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::state::Scalars;

use super::*;
use crate::testing::*;

#[derive(Debug, Clone, Copy)]
struct Case {
    strict: bool,
    deletions: bool,
    lateness: i64,
    /// Rows come over another as-of join, so they are derived.
    chained: bool,
}

/// Records with a name are versions; of these the ones named "" delete, if there are deletions. The others are rows.
fn is_version(record: &Record) -> bool {
    record.name.is_some()
}

fn deletes(case: &Case, record: &Record) -> bool {
    case.deletions && record.name.as_deref() == Some("")
}

/// Rows: value | key | ts. Versions: name, value | key | (deleted) | ts.
fn plan(case: &Case) -> AsofPlan {
    let log = log_schema();
    let of = |index: usize| log.field(index).clone();
    let left = vec![of(3), of(0), of(2)];
    let mut right = vec![of(1), of(3), of(0)];
    if case.deletions {
        right.push(Field::new("deleted", DataType::Boolean, true));
    }
    right.push(of(2));
    AsofPlan {
        left: Arc::new(Schema::new(left)),
        right: Arc::new(Schema::new(right)),
        left_width: 1,
        right_width: 2,
        keys: 1,
        left_derived: false,
        deletions: case.deletions,
        strict: case.strict,
        lateness_us: case.lateness,
        sources: vec![0],
        source_names: vec![(0, "log".to_owned())],
    }
}

/// The second join of a chain: value, name, value | key (the value of the match) | ts | names. Its versions are the same.
fn second_plan(case: &Case) -> AsofPlan {
    let first = plan(case);
    let out = first.output();
    let mut left: Vec<Field> = out.fields().iter().take(3).map(|field| field.as_ref().clone()).collect();
    left.push(Field::new("key", DataType::Int64, true));
    left.push(Field::new("ts", timestamp(), true));
    left.extend(name_fields());
    AsofPlan { left: Arc::new(Schema::new(left)), left_width: 3, left_derived: true, ..first }
}

/// Reads the log as both sides and holds the watermark back, as the planner does with exchanges and `HoldBack`.
struct Both {
    case: Case,
    first: Asof,
    /// Fed by the first; both are on one worker, so keys need no exchange.
    second: Option<(Asof, Output)>,
    own: Output,
}

impl Both {
    fn new(case: Case) -> Self {
        let asof = |plan: AsofPlan| Asof::new(plan).expect("a plan");
        // The first needs its time in the result, to be joined again: the value column is enough for tests, the time is a column of it.
        let first = if case.chained { timed(plan(&case)) } else { plan(&case) };
        Self {
            case,
            first: asof(first),
            second: case.chained.then(|| (asof(second_plan(&case)), Output::default())),
            own: Output::default(),
        }
    }

    fn hand_over(&mut self, out: &mut Output) -> Result<()> {
        out.late.append(&mut self.own.late);
        out.counts.add(&std::mem::take(&mut self.own.counts));
        let rows = std::mem::take(&mut self.own.rows);
        let Some((second, theirs)) = &mut self.second else {
            out.rows.extend(rows);
            return Ok(());
        };
        for rows in rows {
            // value, ts, name, value of the match | source, partition, offset
            let column = |index: usize| Arc::clone(rows.batch.column(index));
            let columns = vec![column(0), column(2), column(3), column(3), column(1), column(4), column(5), column(6)];
            let batch = RecordBatch::try_new(second_plan(&self.case).left, columns)?;
            second.on_rows(LEFT, rows.with_batch(batch), theirs)?;
        }
        out.rows.append(&mut theirs.rows);
        out.counts.add(&std::mem::take(&mut theirs.counts));
        Ok(())
    }
}

/// The plan with the time among the result columns.
fn timed(plan: AsofPlan) -> AsofPlan {
    let fields = plan.left.fields();
    let left = [0, 2, 1, 2].map(|index: usize| fields[index].as_ref().clone()).to_vec();
    AsofPlan { left: Arc::new(Schema::new(left)), left_width: 2, ..plan }
}

/// The rows of one side.
fn side(case: &Case, rows: &Rows, versions: bool) -> Rows {
    let named = rows.batch.column(1);
    let at: UInt32Array = (0..rows.len() as u32).filter(|row| named.is_valid(*row as usize) == versions).collect();
    let rows = rows.take(&at).expect("takes");
    let column = |index: usize| Arc::clone(rows.batch.column(index));
    let hashes = hash_columns(&[column(0)], rows.len()).expect("hashes");
    let mut columns = match (versions, case.chained) {
        (true, _) => vec![column(1), column(3), column(0)],
        (false, false) => vec![column(3), column(0)],
        (false, true) => vec![column(3), column(2), column(0)],
    };
    if versions && case.deletions {
        let names = column(1);
        let names = arrow::array::AsArray::as_string::<i32>(&names).clone();
        columns.push(Arc::new(names.iter().map(|name| Some(name == Some(""))).collect::<BooleanArray>()));
    }
    columns.push(column(2));
    let plan = if case.chained { timed(plan(case)) } else { plan(case) };
    let schema = if versions { plan.right } else { plan.left };
    let batch = RecordBatch::try_new(schema, columns).expect("one length");
    Rows { hashes: Some(hashes.into()), ..rows.with_batch(batch) }
}

impl Operator for Both {
    fn name(&self) -> &'static str {
        "both"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        let versions = side(&self.case, &rows, true);
        self.first.on_rows(RIGHT, versions.clone(), &mut self.own)?;
        self.first.on_rows(LEFT, side(&self.case, &rows, false), &mut self.own)?;
        self.hand_over(out)?;
        if let Some((second, theirs)) = &mut self.second {
            // Late versions were told by the first; its tokens are with the first.
            second.on_rows(RIGHT, Rows { tokens: Tokens::none(), ..versions }, theirs)?;
            theirs.late.clear();
        }
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        let held = watermark.map(|watermark| tidemill_engine::time::minus(watermark, self.case.lateness));
        self.first.on_tick(held, &mut self.own)?;
        self.hand_over(out)?;
        if let Some((second, theirs)) = &mut self.second {
            second.on_tick(held, theirs)?;
        }
        self.hand_over(out)
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.first.on_end(&mut self.own)?;
        self.hand_over(out)?;
        if let Some((second, theirs)) = &mut self.second {
            second.on_end(theirs)?;
        }
        self.hand_over(out)
    }

    fn tables(&self) -> Vec<TableSpec> {
        self.first.tables().into_iter().chain(self.second.iter().flat_map(|(second, _)| second.tables())).collect()
    }

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        match &mut self.second {
            Some((second, _)) if table > 1 => second.changes(table - 2, full),
            _ => self.first.changes(table, full),
        }
    }

    fn load(&mut self, table: usize, rows: &RecordBatch) -> Result<()> {
        match &mut self.second {
            Some((second, _)) if table > 1 => second.load(table - 2, rows),
            _ => self.first.load(table, rows),
        }
    }

    fn load_scalars(&mut self, scalars: &Scalars) {
        self.first.load_scalars(scalars);
    }
}

fn model(case: &Case, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
    let mut late = Late::new();
    let mut in_time: Vec<&Record> = Vec::new();
    for record in log {
        match record.time {
            Some(time) if record.watermark != i64::MIN && time + case.lateness < record.watermark => {
                // A version without a key matches nothing, late or not.
                if !is_version(record) || record.key.is_some() {
                    late.insert((record.partition, record.offset, None));
                }
            }
            _ => in_time.push(record),
        }
    }
    let find = |key: Option<i64>, time: Option<i64>| -> Option<&Record> {
        let (key, time) = (key?, time?);
        let valid = in_time.iter().filter(|version| {
            is_version(version)
                && version.key == Some(key)
                && version.time.is_some_and(|at| if case.strict { at < time } else { at <= time })
        });
        let newest = valid.max_by_key(|version| (version.time, version.partition, version.offset)).copied();
        newest.filter(|version| !deletes(case, version))
    };
    let shown = |found: Option<&Record>| match found {
        Some(version) => format!("{:?}|{}", version.name.clone().unwrap_or_default(), text(version.value)),
        None => "NULL|NULL".to_owned(),
    };
    let mut results = Results::new();
    for row in in_time.iter().filter(|record| !is_version(record)) {
        if !published(row.time.map_or(i64::MIN, |time| time + case.lateness + 1)) {
            continue;
        }
        let first = find(row.key, row.time);
        let name = format!("{:?}|{}|{}", "log", row.partition, row.offset);
        let line = match case.chained {
            false => format!("{}|{}|{name}", text(row.value), shown(first)),
            true => {
                let second = find(first.and_then(|first| first.value), row.time);
                format!("{}|{}|{}|{name}", text(row.value), shown(first), shown(second))
            }
        };
        *results.entry(line).or_default() += 1;
    }
    (results, late)
}

fn run(case: Case, workers: &'static [usize], seeds: u64) {
    struct Keyed;
    impl Operator for Keyed {
        fn name(&self) -> &'static str {
            "keyed"
        }
        fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
            let hashes = hash_columns(&[Arc::clone(rows.batch.column(0))], rows.len())?;
            out.emit(Rows { hashes: Some(hashes.into()), ..rows });
            Ok(())
        }
    }
    for seed in 0..seeds {
        drive(
            &Subject {
                name: &format!("{case:?}"),
                make: &|workers| {
                    (
                        (0..workers).map(|_| Box::new(Keyed) as Box<dyn Operator>).collect(),
                        (0..workers).map(|_| Box::new(Both::new(case)) as Box<dyn Operator>).collect(),
                    )
                },
                workers,
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
    for strict in [false, true] {
        for deletions in [false, true] {
            for lateness in [0, 7, 40] {
                run(Case { strict, deletions, lateness, chained: false }, &[1, 2, 4], 12 * SEEDS);
            }
        }
    }
}

#[test]
fn a_chain_equals_the_model() {
    for (strict, lateness) in [(false, 0), (true, 7), (false, 30)] {
        run(Case { strict, deletions: true, lateness, chained: true }, &[1], 20 * SEEDS);
    }
}

#[test]
fn versions_that_no_row_can_meet_are_dropped() {
    let case = Case { strict: false, deletions: true, lateness: 0, chained: false };
    let record = |offset: i64, name: &str, time: i64| Record {
        partition: 0,
        offset,
        key: Some(1),
        name: Some(name.to_owned()),
        time: Some(time),
        value: None,
        watermark: i64::MIN,
    };
    let mut both = Both::new(case);
    let mut out = Output::default();
    let records: Vec<Record> = (0..100).map(|n| record(n, "a", n)).collect();
    both.on_rows(0, source_rows(&records), &mut out).expect("takes");
    both.on_tick(Some(50), &mut out).expect("ticks");
    assert_eq!(both.first.entries[0].versions.places().count(), 51, "50 to 99, and the one before them");
    both.on_tick(Some(1000), &mut out).expect("ticks");
    assert_eq!(both.first.entries[0].versions.places().count(), 1);
    both.on_rows(0, source_rows(&[record(100, "", 2000)]), &mut out).expect("takes");
    both.on_tick(Some(3000), &mut out).expect("ticks");
    assert_eq!(both.first.entries[0].versions.places().count(), 0, "what is deleted leaves nothing");
    let spec = both.tables();
    assert_eq!(both.changes(0, false).expect("changes").deletes.iter().map(RecordBatch::num_rows).sum::<usize>(), 101);
    both.changes(1, false).expect("changes");
    assert_eq!((both.first.groups.used(), spec.len()), (0, 2), "and the key itself is forgotten");
    assert_eq!(out.counts.of(0).filtered, 101);
}

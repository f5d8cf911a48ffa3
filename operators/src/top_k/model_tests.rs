//! Top-k against a naive model: over a log (with and without windows) and over results that are revised.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use arrow::datatypes::{Field, Schema};

use super::*;
use crate::aggregate::{Function, Spec};
use crate::judge::Judge;
use crate::testing::*;
use crate::window_aggregate::{Aggregation, Call, Final, Input, ROWS_PER_TICK_MAX, Windowing};
use crate::window_assign::WindowAssign;
use crate::windows::Windows;

/// Puts the key hash of columns on rows, as an exchange does; assigns windows first if there are any.
struct Exchanged {
    assign: Option<WindowAssign>,
    keys: Vec<usize>,
}

impl Operator for Exchanged {
    fn name(&self) -> &'static str {
        "exchanged"
    }

    fn on_rows(&mut self, port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        match &mut self.assign {
            Some(assign) => assign.on_rows(port, rows, out)?,
            None => out.emit(rows),
        }
        for rows in &mut out.rows {
            let keys: Vec<ArrayRef> = self.keys.iter().map(|key| rows.batch.column(*key).clone()).collect();
            rows.hashes = Some(hash_columns(&keys, rows.len())?.into());
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Case {
    windows: Option<Windows>,
    lateness: i64,
    k: usize,
    row_number: bool,
    order: SortOptions,
    emit: Emit,
}

fn windowed_schema() -> SchemaRef {
    let mut fields: Vec<_> = log_schema().fields().iter().cloned().collect();
    fields.extend(["window_start", "window_end"].map(|name| Arc::new(Field::new(name, timestamp(), false))));
    Arc::new(Schema::new(fields))
}

fn with_rank(input: &SchemaRef, row_number: bool) -> SchemaRef {
    let mut fields: Vec<_> = input.fields().iter().cloned().collect();
    fields.extend(row_number.then(|| Arc::new(Field::new("row_number", DataType::Int64, false))));
    Arc::new(Schema::new(fields))
}

fn ranking(case: &Case) -> Ranking {
    let input = if case.windows.is_some() { windowed_schema() } else { log_schema() };
    Ranking {
        partition: if case.windows.is_some() { vec![0, 4, 5] } else { vec![0] },
        order: vec![(3, case.order)],
        k: case.k,
        identity: Vec::new(),
        row_number: case.row_number,
        window_end: case.windows.map(|_| 5),
        retention_us: case.lateness,
        retracts: false,
        output: with_rank(&input, case.row_number),
        input,
        sources: vec![0],
        emit: case.emit,
    }
}

fn by_value(options: SortOptions, left: Option<i64>, right: Option<i64>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (None, _) => {
            if options.nulls_first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (_, None) => {
            if options.nulls_first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (left, right) => {
            if options.descending {
                right.cmp(&left)
            } else {
                left.cmp(&right)
            }
        }
    }
}

fn model(case: &Case, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
    let (mut late, mut partitions) = (Late::new(), BTreeMap::<(Option<i64>, i64), Vec<&Record>>::new());
    for record in log {
        let Some(windows) = &case.windows else {
            partitions.entry((record.key, 0)).or_default().push(record);
            continue;
        };
        let Some((first, last)) = record.time.and_then(|time| windows.covering(time).windows) else { continue };
        for k in first..=last {
            if record.watermark != i64::MIN && windows.end(k) + case.lateness <= record.watermark {
                late.insert((record.partition, record.offset, Some(windows.start(k))));
            } else if published(windows.end(k)) {
                partitions.entry((record.key, k)).or_default().push(record);
            }
        }
    }
    let mut results = Results::new();
    for ((_, k), mut rows) in partitions {
        rows.sort_by(|left, right| {
            by_value(case.order, left.value, right.value).then((left.partition, left.offset).cmp(&(right.partition, right.offset)))
        });
        for (rank, row) in (1..).zip(rows.into_iter().take(case.k)) {
            let name = row.name.as_ref().map_or("NULL".into(), |name| format!("{name:?}"));
            let mut line = vec![text(row.key), name, text(row.time), text(row.value)];
            line.extend(case.windows.iter().flat_map(|windows| [windows.start(k).to_string(), windows.end(k).to_string()]));
            line.extend(case.row_number.then(|| rank.to_string()));
            *results.entry(line.join("|")).or_default() += 1;
        }
    }
    (results, late)
}

#[test]
fn over_a_log_any_run_equals_the_model() {
    let windows = [None, Windows::tumble(10, 0).ok(), Windows::hop(4, 10, 1).ok()];
    for (number, windows) in windows.into_iter().enumerate() {
        for (k, row_number) in [(1, false), (3, true), (2, false), (1000, true)] {
            for (emit, lateness) in [(Emit::Final, 0), (Emit::Final, 12), (Emit::Changes, 5)] {
                if windows.is_none() && emit == Emit::Final {
                    continue;
                }
                let order = SortOptions { descending: k != 2, nulls_first: k == 3 };
                let case = Case { windows, lateness, k, row_number, order, emit };
                let assign = |_| -> Box<dyn Operator> {
                    let assign = windows.map(|windows| WindowAssign::new(Judge::new(windows, lateness), 2, windowed_schema()));
                    Box::new(Exchanged { assign, keys: ranking(&case).partition })
                };
                let top_k = |_| -> Box<dyn Operator> { Box::new(TopK::new(ranking(&case)).expect("a top-k")) };
                for seed in 0..4 * SEEDS {
                    drive(
                        &Subject {
                            name: &format!("{case:?}"),
                            make: &|workers| ((0..workers).map(assign).collect(), (0..workers).map(top_k).collect()),
                            workers: &[1, 2, 4],
                            holds_none: true,
                            publishes: if case.emit == Emit::Changes { Publishes::EachEpoch } else { Publishes::AtWatermark },
                            model: &|log, published| model(&case, log, published),
                        },
                        seed * 100 + number as u64,
                    );
                }
            }
        }
    }
}

/// GROUP BY key and window (count), then the k windows or keys with the greatest count.
struct Ranked {
    windows: Windows,
    lateness: i64,
    k: usize,
    row_number: bool,
    /// Rank the keys of a window when it closes; otherwise the windows of a key, for ever.
    within_window: bool,
}

impl Ranked {
    fn operators(&self) -> Box<dyn Operator> {
        let name = |name: &str, kind: DataType| Field::new(name, kind, true);
        let fields = vec![
            name("key", DataType::Int64),
            name("window_start", timestamp()),
            name("window_end", timestamp()),
            name("n", DataType::Int64),
        ];
        let counts: SchemaRef = Arc::new(Schema::new(fields));
        let spec = Spec { function: Function::CountStar, input: None, output: DataType::Int64, retracts: false };
        let aggregation = Aggregation {
            keys: vec![0],
            windowing: Some(Windowing { time: 2, windows: self.windows, lateness_us: self.lateness, retention_extra_us: 0 }),
            calls: vec![Call { spec, argument: None, filter: None }],
            input: log_schema(),
            output: Arc::clone(&counts),
            sources: vec![0],
            emit: Emit::Final,
            retracts: false,
            rows_per_tick_max: ROWS_PER_TICK_MAX,
        };
        let ranking = Ranking {
            partition: if self.within_window { vec![1, 2] } else { vec![0] },
            order: vec![(3, SortOptions { descending: true, nulls_first: true })],
            k: self.k,
            identity: vec![0, 1],
            row_number: self.row_number,
            window_end: self.within_window.then_some(2),
            retention_us: self.lateness,
            retracts: true,
            output: with_rank(&counts, self.row_number),
            input: counts,
            sources: vec![0],
            emit: if self.within_window { Emit::Final } else { Emit::Changes },
        };
        let aggregate = Box::new(Final::new(Arc::new(aggregation), Input::Raw).expect("an aggregate"));
        Box::new(Chain::new(vec![aggregate, Box::new(TopK::new(ranking).expect("a top-k"))]))
    }

    fn model(&self, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
        let (mut late, mut counts) = (Late::new(), BTreeMap::<(Option<i64>, i64), i64>::new());
        for record in log {
            let Some((first, last)) = record.time.and_then(|time| self.windows.covering(time).windows) else { continue };
            for k in first..=last {
                if record.watermark != i64::MIN && self.windows.end(k) + self.lateness <= record.watermark {
                    late.insert((record.partition, record.offset, Some(self.windows.start(k))));
                } else if published(self.windows.end(k)) {
                    *counts.entry((record.key, k)).or_default() += 1;
                }
            }
        }
        let mut partitions: BTreeMap<Option<i64>, Vec<(i64, Option<i64>, i64)>> = BTreeMap::new();
        for ((key, k), n) in counts {
            partitions.entry(if self.within_window { Some(k) } else { key }).or_default().push((-n, key, k));
        }
        let mut results = Results::new();
        for mut rows in partitions.into_values() {
            // NULL first: identity columns sort ascending.
            rows.sort();
            for (rank, (n, key, k)) in (1..).zip(rows.into_iter().take(self.k)) {
                let mut line = vec![text(key), self.windows.start(k).to_string(), self.windows.end(k).to_string(), (-n).to_string()];
                line.extend(self.row_number.then(|| i64::to_string(&rank)));
                results.insert(line.join("|"), 1);
            }
        }
        (results, late)
    }
}

#[test]
fn over_results_that_are_revised_any_run_equals_the_model() {
    for windows in [Windows::tumble(10, 0), Windows::hop(4, 10, 0)] {
        let windows = windows.expect("windows");
        for (k, row_number) in [(1, false), (2, true), (3, false)] {
            for lateness in [0, 15] {
                for within_window in [false, true] {
                    let ranked = Ranked { windows, lateness, k, row_number, within_window };
                    for seed in 0..4 * SEEDS {
                        drive(
                            &Subject {
                                name: &format!("{windows:?} k {k} row_number {row_number} lateness {lateness} within {within_window}"),
                                make: &|_| (Vec::new(), vec![ranked.operators()]),
                                workers: &[1],
                                holds_none: false,
                                publishes: if within_window { Publishes::AtWatermark } else { Publishes::BothWays },
                                model: &|log, published| ranked.model(log, published),
                            },
                            seed,
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn too_many_rows_a_partition_are_refused() {
    let windows = Windows::tumble(10, 0).ok();
    let case = Case { windows, lateness: 0, k: K_MAX + 1, row_number: false, order: SortOptions::default(), emit: Emit::Final };
    assert!(TopK::new(ranking(&case)).is_err());
}

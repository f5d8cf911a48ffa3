//! The aggregate against a naive model: random logs, any number of workers, cuts and restarts anywhere, closing publishes.

use std::collections::BTreeMap;

use tidemill_engine::operator::Operator;

use super::*;
use crate::aggregate::Function;
use crate::testing::*;

/// One configuration of the test.
#[derive(Debug, Clone)]
struct Case {
    windows: Option<Windows>,
    keys: Vec<usize>,
    lateness: i64,
    emit: Emit,
    functions: Vec<Function>,
}

fn aggregation(case: &Case) -> Arc<Aggregation> {
    let input = log_schema();
    let calls: Vec<Call> = case
        .functions
        .iter()
        .map(|function| {
            let argument = (*function != Function::CountStar).then_some(3);
            let spec =
                Spec { function: function.clone(), input: argument.map(|_| DataType::Int64), output: DataType::Int64, retracts: false };
            Call { spec, argument, filter: None }
        })
        .collect();
    let mut fields: Vec<Field> = case.keys.iter().map(|key| input.field(*key).clone()).collect();
    if case.windows.is_some() {
        fields.extend(["window_start", "window_end"].map(|name| Field::new(name, timestamp(), false)));
    }
    fields.extend(calls.iter().enumerate().map(|(at, _)| Field::new(format!("a{at}"), DataType::Int64, true)));
    let windowing = case.windows.map(|windows| Windowing { time: 2, windows, lateness_us: case.lateness, retention_extra_us: 0 });
    Arc::new(Aggregation {
        keys: case.keys.clone(),
        windowing,
        calls,
        input,
        output: Arc::new(Schema::new(fields)),
        sources: vec![0],
        emit: case.emit,
        retracts: false,
        rows_per_tick_max: ROWS_PER_TICK_MAX,
    })
}

/// Results of the windows for which `published(end)` holds, and every (row, window) missed.
fn model(case: &Case, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
    let mut groups: BTreeMap<Vec<String>, (i64, Vec<i64>)> = BTreeMap::new();
    let mut late = Late::new();
    for record in log {
        let keys: Vec<String> = case
            .keys
            .iter()
            .map(|key| if *key == 0 { text(record.key) } else { record.name.as_ref().map_or("NULL".into(), |name| format!("{name:?}")) })
            .collect();
        let mut enter = |group: Vec<String>| {
            let group = groups.entry(group).or_default();
            group.0 += 1;
            group.1.extend(record.value);
        };
        let Some(windows) = &case.windows else {
            enter(keys);
            continue;
        };
        let Some(time) = record.time else { continue };
        let Some((first, last)) = windows.covering(time).windows else { continue };
        for k in first..=last {
            if record.watermark != i64::MIN && windows.end(k) + case.lateness <= record.watermark {
                late.insert((record.partition, record.offset, Some(windows.start(k))));
            } else if published(windows.end(k)) {
                enter([keys.clone(), vec![windows.start(k).to_string(), windows.end(k).to_string()]].concat());
            }
        }
    }
    let lines = groups.into_iter().map(|(mut line, (rows, values))| {
        for function in &case.functions {
            line.push(match function {
                Function::CountStar => rows.to_string(),
                Function::Sum => text((!values.is_empty()).then(|| values.iter().sum::<i64>())),
                Function::Min => text(values.iter().min()),
                Function::Max => text(values.iter().max()),
                other => panic!("no model of {other:?}"),
            });
        }
        (line.join("|"), 1)
    });
    (lines.collect(), late)
}

fn run(case: &Case, seed: u64) {
    let aggregation = aggregation(case);
    drive(
        &Subject {
            name: &format!("{case:?}"),
            make: &|workers| {
                let input = if workers == 1 { Input::Raw } else { Input::Partials };
                let partial = || Box::new(Partial::new(Arc::clone(&aggregation)).expect("a partial")) as Box<dyn Operator>;
                let last = || Box::new(Final::new(Arc::clone(&aggregation), input).expect("a final")) as Box<dyn Operator>;
                ((0..if workers == 1 { 0 } else { workers }).map(|_| partial()).collect(), (0..workers).map(|_| last()).collect())
            },
            workers: &[1, 2, 3, 4],
            holds_none: true,
            publishes: if case.emit == Emit::Changes { Publishes::EachEpoch } else { Publishes::AtWatermark },
            model: &|log, published| model(case, log, published),
        },
        seed,
    );
}

fn cases() -> Vec<Case> {
    let tumble = Windows::tumble(10, 0).expect("windows");
    let windows = [
        Some(tumble),
        Windows::tumble(7, 3).ok(),
        Windows::hop(2, 10, 0).ok(),
        Windows::hop(3, 10, 1).ok(),
        Windows::hop(1, 60, 0).ok(),
        Windows::hop(12, 5, 0).ok(),
        None,
    ];
    let sums = vec![Function::CountStar, Function::Sum];
    let extremes = vec![Function::CountStar, Function::Min, Function::Max];
    let mut cases = Vec::new();
    for windows in windows {
        for keys in [vec![0], vec![1], vec![0, 1], vec![]] {
            for functions in [sums.clone(), extremes.clone(), Vec::new()] {
                for (emit, lateness) in [(Emit::Final, 0), (Emit::Final, 15), (Emit::Changes, 5)] {
                    if (windows.is_some() || emit == Emit::Changes) && !(keys.is_empty() && functions.is_empty()) {
                        cases.push(Case { windows, keys: keys.clone(), lateness, emit, functions: functions.clone() });
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn any_run_equals_the_model() {
    for (number, case) in cases().iter().enumerate() {
        for seed in 0..SEEDS {
            run(case, seed * 1_000 + number as u64);
        }
    }
}

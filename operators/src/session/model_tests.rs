//! Sessions against a naive model: sort the rows in time of each key and cut where the distance is greater than the gap.

use std::collections::BTreeMap;

use tidemill_engine::operator::Operator;

use super::*;
use crate::aggregate::Function;
use crate::testing::*;
use crate::window_aggregate::Input;

#[derive(Debug, Clone)]
struct Case {
    gap: i64,
    lateness: i64,
    keys: Vec<usize>,
    emit: Emit,
    latest: bool,
}

const FUNCTIONS: [Function; 4] = [Function::CountStar, Function::Sum, Function::Min, Function::Max];

fn sessions(case: &Case) -> Arc<Sessions> {
    let input = log_schema();
    let calls = FUNCTIONS.map(|function| {
        let argument = (function != Function::CountStar).then_some(3);
        Call {
            spec: Spec { function, input: argument.map(|_| DataType::Int64), output: DataType::Int64, retracts: false },
            argument,
            filter: None,
        }
    });
    let mut fields: Vec<Field> = case.keys.iter().map(|key| input.field(*key).clone()).collect();
    fields.extend(["window_start", "window_end"].map(|name| Field::new(name, timestamp(), false)));
    fields.extend((0..4).map(|at| Field::new(format!("a{at}"), DataType::Int64, true)));
    Arc::new(Sessions {
        keys: case.keys.clone(),
        time: 2,
        gap_us: case.gap,
        lateness_us: case.lateness,
        calls: calls.to_vec(),
        input,
        output: Arc::new(Schema::new(fields)),
        sources: vec![0],
        emit: case.emit,
        latest: case.latest,
    })
}

fn model(case: &Case, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
    let (mut late, mut keys) = (Late::new(), BTreeMap::<Vec<String>, Vec<(i64, Option<i64>)>>::new());
    for record in log {
        let Some(time) = record.time else { continue };
        if record.watermark != i64::MIN && time + case.gap + case.lateness <= record.watermark {
            late.insert((record.partition, record.offset, Some(time)));
            continue;
        }
        let name = || record.name.as_ref().map_or("NULL".into(), |name| format!("{name:?}"));
        let key = case.keys.iter().map(|key| if *key == 0 { text(record.key) } else { name() }).collect();
        keys.entry(key).or_default().push((time, record.value));
    }
    let mut results = Results::new();
    for (key, mut rows) in keys {
        rows.sort();
        let all = rows.chunk_by(|left, right| right.0 - left.0 <= case.gap);
        for session in all.skip(if case.latest { rows.chunk_by(|left, right| right.0 - left.0 <= case.gap).count() - 1 } else { 0 }) {
            let (start, end) = (session[0].0, session[session.len() - 1].0 + case.gap);
            if published(end) {
                let values: Vec<i64> = session.iter().filter_map(|row| row.1).collect();
                let sum = (!values.is_empty()).then(|| values.iter().sum::<i64>());
                let mut line = key.clone();
                line.extend([
                    start.to_string(),
                    end.to_string(),
                    session.len().to_string(),
                    text(sum),
                    text(values.iter().min()),
                    text(values.iter().max()),
                ]);
                results.insert(line.join("|"), 1);
            }
        }
    }
    (results, late)
}

fn run(case: &Case, seeds: u64) {
    let plan = sessions(case);
    for seed in 0..seeds {
        drive(
            &Subject {
                name: &format!("{case:?}"),
                make: &|workers| {
                    let input = if workers == 1 { Input::Raw } else { Input::Partials };
                    let partial = || Box::new(Partial::new(Arc::clone(&plan)).expect("a partial")) as Box<dyn Operator>;
                    let last = || Box::new(Final::new(Arc::clone(&plan), input).expect("a final")) as Box<dyn Operator>;
                    ((0..if workers == 1 { 0 } else { workers }).map(|_| partial()).collect(), (0..workers).map(|_| last()).collect())
                },
                workers: &[1, 2, 3, 4],
                holds_none: !case.latest,
                publishes: match (case.latest, case.emit) {
                    (true, _) => Publishes::EachEpochByKey(case.keys.len()),
                    (false, Emit::Changes) => Publishes::EachEpoch,
                    (false, Emit::Final) => Publishes::AtWatermark,
                },
                model: &|log, published| model(case, log, published),
            },
            seed,
        );
    }
}

#[test]
fn any_run_equals_the_model() {
    for keys in [vec![0], vec![1], vec![0, 1], vec![]] {
        for (gap, lateness) in [(3, 0), (3, 20), (12, 4), (40, 0), (1, 2)] {
            for emit in [Emit::Final, Emit::Changes] {
                run(&Case { gap, lateness, keys: keys.clone(), emit, latest: false }, 4 * SEEDS);
            }
        }
    }
}

#[test]
fn the_latest_session_of_a_key_replaces_the_one_before() {
    for keys in [vec![0], vec![0, 1], vec![]] {
        for (gap, lateness) in [(3, 0), (3, 20), (12, 4), (40, 0), (0, 2)] {
            run(&Case { gap, lateness, keys: keys.clone(), emit: Emit::Changes, latest: true }, 8 * SEEDS);
        }
    }
}

//! Aggregates over results that are revised (weights -1), with and without windows, against a naive model.

use std::collections::BTreeMap;

use tidemill_engine::operator::Operator;

use super::*;
use crate::aggregate::Function;
use crate::hold_back::HoldBack;
use crate::testing::*;

/// Count per key and tumble, then over those counts per key: count, sum, min, max, for ever or in windows of windows.
struct Nested {
    lateness: i64,
    outer: Option<Windows>,
    emit: Emit,
}

const SIZE: i64 = 10;

impl Nested {
    /// How far behind the input's watermark a result's `window_start` may be.
    fn bound(&self) -> i64 {
        self.lateness + SIZE
    }

    fn operators(&self) -> Box<dyn Operator> {
        let field = |name: &str, kind: DataType| Field::new(name, kind, true);
        let count = |retracts| Spec { function: Function::CountStar, input: None, output: DataType::Int64, retracts };
        let times = || ["window_start", "window_end"].map(|name| field(name, timestamp()));
        let mut fields = vec![field("key", DataType::Int64)];
        fields.extend(times());
        fields.push(field("n", DataType::Int64));
        let counts: SchemaRef = Arc::new(Schema::new(fields));
        let windows = Windows::tumble(SIZE, 0).expect("windows");
        let inner = Aggregation {
            keys: vec![0],
            windowing: Some(Windowing { time: 2, windows, lateness_us: self.lateness, retention_extra_us: 0 }),
            calls: vec![Call { spec: count(false), argument: None, filter: None }],
            input: log_schema(),
            output: Arc::clone(&counts),
            sources: vec![0],
            emit: Emit::Final,
            retracts: false,
            rows_per_tick_max: ROWS_PER_TICK_MAX,
        };
        let of_n = |function| Call {
            spec: Spec { function, input: Some(DataType::Int64), output: DataType::Int64, retracts: true },
            argument: Some(3),
            filter: None,
        };
        let mut fields = vec![field("key", DataType::Int64)];
        fields.extend(self.outer.iter().flat_map(|_| times()));
        fields.extend(["windows", "sum", "min", "max"].map(|name| field(name, DataType::Int64)));
        let outer = Aggregation {
            keys: vec![0],
            windowing: self.outer.map(|windows| Windowing { time: 1, windows, lateness_us: 0, retention_extra_us: 0 }),
            calls: vec![
                Call { spec: count(true), argument: None, filter: None },
                of_n(Function::Sum),
                of_n(Function::Min),
                of_n(Function::Max),
            ],
            input: counts,
            output: Arc::new(Schema::new(fields)),
            sources: vec![0],
            emit: self.emit,
            retracts: true,
            rows_per_tick_max: ROWS_PER_TICK_MAX,
        };
        let last = |aggregation| Box::new(Final::new(Arc::new(aggregation), Input::Raw).expect("an aggregate")) as Box<dyn Operator>;
        Box::new(Chain::new(vec![last(inner), Box::new(HoldBack::new(self.bound())), last(outer)]))
    }

    fn model(&self, log: &[Record], published: &dyn Fn(i64) -> bool) -> (Results, Late) {
        let (mut late, mut counts) = (Late::new(), BTreeMap::<(Option<i64>, i64), i64>::new());
        for record in log {
            let Some(time) = record.time else { continue };
            let start = time.div_euclid(SIZE) * SIZE;
            if record.watermark != i64::MIN && start + SIZE + self.lateness <= record.watermark {
                late.insert((record.partition, record.offset, Some(start)));
            } else if published(start + SIZE) {
                *counts.entry((record.key, start)).or_default() += 1;
            }
        }
        let mut groups = BTreeMap::<(Option<i64>, i64), Vec<i64>>::new();
        for ((key, start), n) in counts {
            let covering = self.outer.map_or(Some((0, 0)), |windows| windows.covering(start).windows);
            for k in covering.into_iter().flat_map(|(first, last)| first..=last) {
                if self.outer.is_none_or(|windows| self.emit == Emit::Changes || published(windows.end(k) + self.bound())) {
                    groups.entry((key, k)).or_default().push(n);
                }
            }
        }
        let mut results = Results::new();
        for ((key, k), counts) in groups {
            let mut line = vec![text(key)];
            line.extend(self.outer.iter().flat_map(|windows| [windows.start(k).to_string(), windows.end(k).to_string()]));
            line.extend([
                counts.len().to_string(),
                counts.iter().sum::<i64>().to_string(),
                text(counts.iter().min()),
                text(counts.iter().max()),
            ]);
            results.insert(line.join("|"), 1);
        }
        (results, late)
    }
}

#[test]
fn any_run_over_revised_results_equals_the_model() {
    let outers = [None, Windows::tumble(30, 0).ok(), Windows::hop(20, 60, 0).ok()];
    for outer in outers {
        for lateness in [0, 25] {
            for emit in [Emit::Final, Emit::Changes] {
                if outer.is_none() && emit == Emit::Final {
                    continue;
                }
                let nested = Nested { lateness, outer, emit };
                for seed in 0..8 * SEEDS {
                    drive(
                        &Subject {
                            name: &format!("{outer:?} lateness {lateness} {emit:?}"),
                            make: &|_| (Vec::new(), vec![nested.operators()]),
                            workers: &[1],
                            holds_none: true,
                            publishes: if emit == Emit::Changes { Publishes::BothWays } else { Publishes::AtWatermark },
                            model: &|log, published| nested.model(log, published),
                        },
                        seed,
                    );
                }
            }
        }
    }
}

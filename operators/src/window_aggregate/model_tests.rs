//! The aggregate against a naive model: random logs, any number of workers, cuts and restarts anywhere, closing publishes.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_engine::account::NodeCounts;
use tidemill_engine::operator::{Operator, Output};

use super::finish::Input;
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
            let spec = Spec { function: function.clone(), input: argument.map(|_| DataType::Int64), output: DataType::Int64, retracts: false };
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

type Results = BTreeMap<String, i64>;
type Late = BTreeSet<(i32, i64, Option<i64>)>;

/// Results of the windows for which `published(end)` holds, and every (row, window) missed.
fn model(case: &Case, log: &[Record], published: impl Fn(i64) -> bool) -> (Results, Late) {
    let mut groups: BTreeMap<Vec<String>, (i64, Vec<i64>)> = BTreeMap::new();
    let mut late = Late::new();
    for record in log {
        let keys: Vec<String> = case.keys.iter().map(|key| if *key == 0 { text(record.key) } else { record.name.as_ref().map_or("NULL".into(), |name| format!("{name:?}")) }).collect();
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

/// The operators of `workers` workers and what came out of them.
struct Cluster {
    aggregation: Arc<Aggregation>,
    partials: Vec<Box<dyn Operator>>,
    finals: Vec<Box<dyn Operator>>,
    outputs: Vec<(Output, Output)>,
}

impl Cluster {
    fn new(aggregation: &Arc<Aggregation>, workers: usize) -> Self {
        let partials = if workers == 1 { 0 } else { workers };
        let input = if workers == 1 { Input::Raw } else { Input::Partials };
        Self {
            aggregation: Arc::clone(aggregation),
            partials: (0..partials).map(|_| Box::new(Partial::new(Arc::clone(aggregation)).expect("a partial")) as Box<dyn Operator>).collect(),
            finals: (0..workers).map(|_| Box::new(Final::new(Arc::clone(aggregation), input).expect("a final")) as Box<dyn Operator>).collect(),
            outputs: (0..workers).map(|_| <(Output, Output)>::default()).collect(),
        }
    }

    fn tick(&mut self, records: &[Record], partitions: i32, watermark: Option<i64>, collected: &mut Collected) {
        let workers = self.finals.len();
        let mut exchanged: Vec<Vec<Rows>> = vec![Vec::new(); workers];
        for worker in 0..workers {
            for partition in (0..partitions).filter(|partition| *partition as usize % workers == worker) {
                let own: Vec<Record> = records.iter().filter(|record| record.partition == partition).cloned().collect();
                let rows = source_rows(&own);
                match self.partials.get_mut(worker) {
                    Some(partial) => partial.on_rows(0, rows, &mut self.outputs[worker].0).expect("takes rows"),
                    None => exchanged[0].push(rows),
                }
            }
            if let Some(partial) = self.partials.get_mut(worker) {
                partial.on_tick(watermark, &mut self.outputs[worker].0).expect("ticks");
                for rows in collected.take(&mut self.outputs[worker].0) {
                    split(&rows, workers).into_iter().enumerate().for_each(|(to, part)| exchanged[to].push(part));
                }
            }
        }
        for (worker, rows) in exchanged.into_iter().enumerate() {
            rows.into_iter().for_each(|rows| self.finals[worker].on_rows(0, rows, &mut self.outputs[worker].1).expect("takes rows"));
            self.finals[worker].on_tick(watermark, &mut self.outputs[worker].1).expect("ticks");
        }
        self.collect(collected);
    }

    fn each(&mut self, collected: &mut Collected, mut f: impl FnMut(&mut dyn Operator, &mut Output)) {
        for (operator, out) in self.finals.iter_mut().zip(&mut self.outputs) {
            f(operator.as_mut(), &mut out.1);
        }
        self.collect(collected);
    }

    fn collect(&mut self, collected: &mut Collected) {
        for (_, out) in &mut self.outputs {
            collected.take(out).iter().for_each(|rows| collected.add(rows));
        }
    }

    fn counts(&self) -> NodeCounts {
        let mut sum = NodeCounts::default();
        self.outputs.iter().for_each(|(partial, last)| {
            sum.add(&partial.counts);
            sum.add(&last.counts);
        });
        sum
    }

    fn restart(&mut self, store: &Store, workers: usize, collected: &mut Collected) {
        collected.before.add(&self.counts());
        *self = Self::new(&self.aggregation, workers);
        store.restore(&mut self.finals);
    }
}

fn balance(cluster: &Cluster, collected: &Collected, read: usize, at: &str) {
    let now = cluster.counts();
    let sum = totals([&now, &collected.before].into_iter());
    assert_eq!(read as i64, collected.out + sum.late + sum.filtered + sum.held, "tokens in = out + settled + held {at}: {sum:?} out {}", collected.out);
    assert!(sum.held >= 0 && sum.late >= 0 && sum.filtered >= 0, "{at}: {sum:?}");
}

fn run(case: &Case, seed: u64) {
    let mut rng = Rng(seed);
    let shape = LogShape {
        partitions: 1 + rng.below(3) as i32,
        records: 40 + rng.below(250) as usize,
        keys: 1 + rng.below(12),
        step: 1 + rng.below(4),
        disorder: rng.below(20),
        delay: rng.below(8) as i64,
    };
    let log = random_log(&mut rng, &shape);
    let aggregation = aggregation(case);
    let mut workers = [1, 2, 4][rng.below(3) as usize];
    let mut cluster = Cluster::new(&aggregation, workers);
    let (mut collected, mut store) = (Collected::default(), Store::default());
    let (mut read, mut tick_rows, mut ended) = (0, 1 + rng.below(30) as usize, false);
    while read < log.len() {
        let to = (read + rng.below(tick_rows as u64 + 1) as usize).min(log.len());
        let watermark = watermark_after(&log[..to], shape.partitions, shape.delay).filter(|watermark| *watermark != i64::MIN);
        cluster.tick(&log[read..to], shape.partitions, watermark, &mut collected);
        read = to;
        let at = format!("{case:?} seed {seed} workers {workers} after {read}");
        balance(&cluster, &collected, read, &at);
        let cut = rng.one_in(4);
        let end = rng.one_in(25);
        if end {
            cluster.each(&mut collected, |operator, out| operator.on_end(out).expect("ends"));
            ended = true;
        } else if cut {
            cluster.each(&mut collected, |operator, out| operator.on_cut(out).expect("cuts"));
        }
        if cut || end {
            store.cut(&mut cluster.finals);
        }
        if !ended && (case.emit == Emit::Final || cut) {
            let (results, late) = model(case, &log[..read], |end| case.emit == Emit::Changes || watermark.is_some_and(|watermark| end <= watermark));
            assert_eq!(collected.net, results, "{at}");
            assert_eq!(collected.late.iter().copied().collect::<BTreeSet<_>>(), late, "{at}");
        }
        if end {
            let (results, _) = model(case, &log[..read], |_| true);
            assert_eq!(collected.net, results, "closing publish, {at}");
        }
        if end || (cut && rng.one_in(3)) {
            workers = [1, 2, 3, 4][rng.below(4) as usize];
            cluster.restart(&store, workers, &mut collected);
            tick_rows = 1 + rng.below(30) as usize;
        }
        balance(&cluster, &collected, read, &at);
    }
    cluster.each(&mut collected, |operator, out| operator.on_end(out).expect("ends"));
    let (results, late) = model(case, &log, |_| true);
    assert_eq!(collected.net, results, "{case:?} seed {seed}");
    assert_eq!(collected.late.len(), late.len(), "a late event twice: {case:?} seed {seed}");
    assert_eq!(collected.late.iter().copied().collect::<BTreeSet<_>>(), late, "{case:?} seed {seed}");
    assert!(collected.least >= 0, "a row was retracted that was not there: {case:?} seed {seed}");
    balance(&cluster, &collected, log.len(), "at the end");
    let sum = totals([&cluster.counts(), &collected.before].into_iter());
    assert_eq!(sum.held, 0, "all is published: {case:?} seed {seed}");
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
        for seed in 0..6 {
            run(case, seed * 1_000 + number as u64);
        }
    }
}

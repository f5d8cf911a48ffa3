//! `UntilFinal` against a naive model: random changes of keyed, windowed results, with restarts and other numbers of workers in the
//! middle. What goes out, and when, is exactly what the model says; every token is held, out or filtered.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use tidemill_engine::account::NodeCounts;

use super::*;
use crate::testing::{Rng, Store, line, split, timestamp, totals};

/// A result: key, text, end of its window, value.
type Result4 = (Option<i64>, Option<&'static str>, i64, Option<i64>);

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("t", DataType::Utf8View, true),
        Field::new("window_end", timestamp(), true),
        Field::new("v", DataType::Int64, true),
    ]))
}

fn rows(changes: &[(Result4, i64, i64)]) -> Rows {
    let batch = RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(changes.iter().map(|((k, ..), ..)| *k).collect::<Int64Array>()),
            Arc::new(changes.iter().map(|((_, t, ..), ..)| *t).collect::<StringViewArray>()),
            Arc::new(TimestampMicrosecondArray::from_iter_values(changes.iter().map(|((.., end, _), ..)| *end))),
            Arc::new(changes.iter().map(|((.., v), ..)| *v).collect::<Int64Array>()),
        ],
    )
    .expect("a batch");
    let weights = changes.iter().map(|(_, weight, _)| *weight).collect();
    let tokens = Tokens::Counts(vec![(0, changes.iter().map(|(.., tokens)| *tokens).collect())]);
    let mut rows = Rows::derived(batch, Some(weights), tokens);
    let keys: Vec<_> = [0, 1, 2].map(|column| Arc::clone(rows.batch.column(column))).into();
    rows.hashes = Some(hash_columns(&keys, rows.len()).expect("hashes").into());
    rows
}

fn operators(workers: usize, delay_us: i64) -> Vec<Box<dyn Operator>> {
    let plan = Holding { key: vec![0, 1, 2], window_end: 2, delay_us, session: None, input: schema(), sources: vec![0] };
    (0..workers).map(|_| Box::new(UntilFinal::new(plan.clone()).expect("a plan")) as Box<dyn Operator>).collect()
}

/// One tick's changes to results that may still change, applied to the model as well.
fn random_changes(
    rng: &mut Rng,
    model: &mut BTreeMap<Result4, (Option<Option<i64>>, i64)>,
    clock: i64,
    delay: i64,
) -> Vec<(Result4, i64, i64)> {
    let mut changes = Vec::new();
    for _ in 0..rng.below(12) {
        let end = (clock - delay + 1).max(0).div_euclid(10) * 10 + 10 * (rng.below(4) as i64 + 1);
        let key = if rng.one_in(9) { None } else { Some(rng.below(4) as i64) };
        let text = [None, Some("a"), Some("a text longer than twelve bytes")][rng.below(3) as usize];
        let entry = model.entry((key, text, end, None)).or_default();
        let row = |value| (key, text, end, value);
        let value = if rng.one_in(5) { None } else { Some(rng.below(100) as i64) };
        let tokens = rng.below(3) as i64;
        match (entry.0, rng.below(4)) {
            (None, _) => {
                changes.push((row(value), 1, tokens));
                *entry = (Some(value), entry.1 + tokens);
            }
            (Some(old), 0) => {
                changes.push((row(old), -1, 0));
                entry.0 = None;
            }
            (Some(old), order) => {
                let (gone, new) = ((row(old), -1, 0), (row(value), 1, tokens));
                changes.extend(if order == 1 { [new, gone] } else { [gone, new] });
                *entry = (Some(value), entry.1 + tokens);
            }
        }
    }
    changes
}

#[test]
fn any_run_equals_the_model() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        let delay = [0, 7, 25][rng.below(3) as usize];
        let mut workers = [1, 2, 4][rng.below(3) as usize];
        let mut instances = operators(workers, delay);
        let mut outputs: Vec<Output> = (0..workers).map(|_| Output::default()).collect();
        let (mut store, mut before, mut model) = (Store::default(), NodeCounts::default(), BTreeMap::new());
        let (mut clock, mut came, mut out) = (0, 0, 0);
        for tick in 0..80 {
            let at = format!("seed {seed} tick {tick} workers {workers}");
            let changes = random_changes(&mut rng, &mut model, clock, delay);
            came += changes.iter().map(|(.., tokens)| tokens).sum::<i64>();
            clock += if rng.one_in(3) { 0 } else { rng.below(9) as i64 };
            let last = tick == 79;
            let watermark = if last { Some(i64::MAX) } else { (!rng.one_in(10)).then_some(clock) };
            for part in changes.chunks(5).map(rows) {
                for (worker, part) in split(&part, workers).into_iter().enumerate() {
                    instances[worker].on_rows(0, part, &mut outputs[worker]).expect("takes rows");
                }
            }
            let mut found = Vec::new();
            for (instance, output) in instances.iter_mut().zip(&mut outputs) {
                instance.on_tick(watermark, output).expect("ticks");
                if rng.one_in(6) {
                    instance.on_end(output).expect("a closing publish lets nothing go");
                }
                for rows in std::mem::take(&mut output.rows) {
                    assert!((0..rows.len()).all(|row| rows.weight(row) == 1), "{at}");
                    rows.tokens.sums(rows.len(), |_, tokens| out += tokens);
                    found.extend((0..rows.len()).map(|row| line(&rows.batch, row)));
                }
            }
            let due = |end: i64| watermark.is_some_and(|watermark| end + delay <= watermark);
            let mut expected = Vec::new();
            model.retain(|(key, text, end, _), (value, _)| {
                if due(*end)
                    && let Some(value) = value
                {
                    let row = rows(&[((*key, *text, *end, *value), 1, 0)]);
                    expected.push(line(&row.batch, 0));
                }
                !due(*end)
            });
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{at}");
            let sum = totals(outputs.iter().map(|output| &output.counts).chain([&before]));
            assert_eq!(came, out + sum.filtered + sum.held, "{at}");
            if rng.one_in(4) {
                store.cut(&mut instances);
                if rng.one_in(2) {
                    outputs.iter().for_each(|output| before.add(&output.counts));
                    workers = [1, 2, 4][rng.below(3) as usize];
                    instances = operators(workers, delay);
                    outputs = (0..workers).map(|_| Output::default()).collect();
                    store.restore(&mut instances);
                }
            }
        }
        let held: i64 = totals(outputs.iter().map(|output| &output.counts).chain([&before])).held;
        assert_eq!((held, instances.iter().map(|each| each.state_bytes()).sum::<usize>()), (0, 0), "seed {seed}: all has gone");
    }
}

#[test]
fn a_session_that_grows_takes_its_tokens_with_it() {
    let plan = Holding { key: vec![0, 1, 2], window_end: 2, delay_us: 5, session: Some(vec![0]), input: schema(), sources: vec![0] };
    let mut operator = UntilFinal::new(plan).expect("a plan");
    let mut out = Output::default();
    let session = |k, end, v| (Some(k), None, end, Some(v));
    operator.on_rows(0, rows(&[(session(1, 10, 2), 1, 2), (session(2, 10, 1), 1, 1)]), &mut out).expect("takes rows");
    operator.on_tick(Some(12), &mut out).expect("ticks");
    // Session 1 grows by a row, session 2 is gone (what is above it dropped it), another of key 1 has come.
    let grown = [(session(1, 10, 2), -1, 0), (session(1, 14, 3), 1, 1), (session(1, 40, 1), 1, 1), (session(2, 10, 1), -1, 0)];
    operator.on_rows(0, rows(&grown), &mut out).expect("takes rows");
    operator.on_tick(Some(19), &mut out).expect("ticks");
    let found: Vec<(String, i64)> =
        out.rows.iter().flat_map(|rows| (0..rows.len()).map(|row| (line(&rows.batch, row), rows.tokens.of(0, row)))).collect();
    assert_eq!(found, [("1|NULL|14|3".to_owned(), 3)]);
    let sum = totals([&out.counts].into_iter());
    assert_eq!((sum.filtered, sum.held), (1, 1));
}

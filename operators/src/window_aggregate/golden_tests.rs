//! Golden scripts: `>` goes in, `<` comes out. One partition; `row TS KEY` is a record, whose watermark is the greatest time before it
//! less 5; `tick` ends a tick at that watermark; `cut` and `end` are an epoch and a closing publish; `crash` goes back to the last epoch.

use tidemill_engine::operator::{Operator, Output};

use super::*;
use crate::aggregate::Function;
use crate::testing::*;

fn aggregation(windows: Option<Windows>, lateness_us: i64, emit: Emit) -> Arc<Aggregation> {
    let spec = Spec { function: Function::CountStar, input: None, output: DataType::Int64, retracts: false };
    let mut fields = vec![Field::new("key", DataType::Int64, true)];
    fields.extend(windows.iter().flat_map(|_| ["window_start", "window_end"].map(|name| Field::new(name, timestamp(), false))));
    fields.push(Field::new("n", DataType::Int64, false));
    Arc::new(Aggregation {
        keys: vec![0],
        windowing: windows.map(|windows| Windowing { time: 2, windows, lateness_us, retention_extra_us: 0 }),
        calls: vec![Call { spec, argument: None, filter: None }],
        input: log_schema(),
        output: Arc::new(Schema::new(fields)),
        sources: vec![0],
        emit,
        retracts: false,
        rows_per_tick_max: ROWS_PER_TICK_MAX,
    })
}

fn show(out: &mut Output) -> Vec<String> {
    let mut lines = Vec::new();
    for rows in std::mem::take(&mut out.rows) {
        for row in 0..rows.len() {
            let sign = if rows.weight(row) > 0 { '+' } else { '-' };
            lines.push(format!("< {sign} {} tokens {}", line(&rows.batch, row), rows.tokens.of(0, row)));
        }
    }
    for event in out.late.drain(..) {
        lines.push(format!("< late {} for {:?}", event.event_time, event.window_start.unwrap_or_default()));
    }
    lines
}

fn play(aggregation: &Arc<Aggregation>, script: &str) {
    let fresh = || Box::new(Final::new(Arc::clone(aggregation), Input::Raw).expect("an aggregate")) as Box<dyn Operator>;
    let (mut operator, mut out, mut store) = (vec![fresh()], Output::default(), Store::default());
    let (mut offset, mut watermark) = (0, i64::MIN);
    let mut played = Vec::new();
    for command in script.lines().map(str::trim).filter(|line| line.starts_with('>')) {
        played.push(command.to_owned());
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        match words.as_slice() {
            ["row", time, key] => {
                let time = time.parse().expect("a time");
                let record = Record { partition: 0, offset, key: key.parse().ok(), name: None, time: Some(time), value: None, watermark };
                operator[0].on_rows(0, source_rows(&[record]), &mut out).expect("takes rows");
                offset += 1;
                watermark = watermark.max(time - 5);
            }
            ["tick"] => operator[0].on_tick(Some(watermark), &mut out).expect("ticks"),
            ["cut"] => {
                operator[0].on_cut(&mut out).expect("cuts");
                store.cut(&mut operator);
            }
            ["end"] => operator[0].on_end(&mut out).expect("ends"),
            ["crash"] => {
                operator = vec![fresh()];
                store.restore(&mut operator);
            }
            other => panic!("no such command: {other:?}"),
        }
        played.extend(show(&mut out));
    }
    let expected: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(played, expected, "\n{}\n", played.join("\n"));
}

#[test]
fn a_tumble_closes_is_repaired_and_reports_what_is_late() {
    play(
        &aggregation(Windows::tumble(10, 0).ok(), 10, Emit::Final),
        "> row 1 7
         > row 3 7
         > row 12 8
         > tick
         > row 16 7
         > tick
         < + 7|0|10|2 tokens 2
         > row 4 7
         > tick
         < - 7|0|10|2 tokens 0
         < + 7|0|10|3 tokens 1
         > row 26 9
         > row 9 7
         < late 9 for 0
         > tick
         < + 8|10|20|1 tokens 1
         < + 7|10|20|1 tokens 1",
    );
}

#[test]
fn a_hop_publishes_a_row_in_each_window_and_its_token_once() {
    play(
        &aggregation(Windows::hop(5, 10, 0).ok(), 0, Emit::Final),
        "> row 1 7
         > row 6 7
         > tick
         > row 15 8
         > tick
         < + 7|-5|5|1 tokens 1
         < + 7|0|10|2 tokens 1
         > row 20 8
         > tick
         < + 7|5|15|1 tokens 0",
    );
}

#[test]
fn a_crash_after_an_epoch_loses_nothing_that_it_holds() {
    play(
        &aggregation(Windows::tumble(10, 0).ok(), 10, Emit::Final),
        "> row 1 7
         > row 16 7
         > tick
         < + 7|0|10|1 tokens 1
         > cut
         > crash
         > row 2 7
         > tick
         < - 7|0|10|1 tokens 0
         < + 7|0|10|2 tokens 1
         > end
         < + 7|10|20|1 tokens 1",
    );
}

#[test]
fn after_a_closing_publish_rows_revise_what_it_published() {
    play(
        &aggregation(Windows::tumble(10, 0).ok(), 0, Emit::Final),
        "> row 11 7
         > tick
         > end
         < + 7|10|20|1 tokens 1
         > row 12 7
         > tick
         < - 7|10|20|1 tokens 0
         < + 7|10|20|2 tokens 1
         > row 40 7
         > tick
         > end
         < + 7|40|50|1 tokens 1",
    );
}

#[test]
fn without_windows_changes_go_out_each_epoch() {
    play(
        &aggregation(None, 0, Emit::Changes),
        "> row 1 7
         > row 2 NULL
         > tick
         > row 3 7
         > tick
         > cut
         < + 7|2 tokens 2
         < + NULL|1 tokens 1
         > row 4 7
         > tick
         > cut
         < - 7|2 tokens 0
         < + 7|3 tokens 1",
    );
}

#[test]
fn at_the_row_limit_windows_wait_and_hold_the_watermark_back() {
    let mut aggregation = Arc::unwrap_or_clone(aggregation(Windows::tumble(10, 0).ok(), 0, Emit::Final));
    aggregation.rows_per_tick_max = 2;
    let mut operator = Final::new(Arc::new(aggregation), Input::Raw).expect("an aggregate");
    let mut out = Output::default();
    let record =
        |time, key| Record { partition: 0, offset: time, key: Some(key), name: None, time: Some(time), value: None, watermark: i64::MIN };
    operator
        .on_rows(0, source_rows(&[record(1, 1), record(2, 2), record(11, 1), record(12, 2), record(21, 1)]), &mut out)
        .expect("takes rows");
    let mut seen = Vec::new();
    for _ in 0..3 {
        operator.on_tick(Some(100), &mut out).expect("ticks");
        seen.push((show(&mut out).len(), out.watermark));
    }
    assert_eq!(seen, [(2, Some(19)), (2, Some(29)), (1, Some(100))]);
}

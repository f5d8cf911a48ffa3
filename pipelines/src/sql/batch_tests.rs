//! tumble, hop and session, run by DataFusion over rows in memory, against a naive model.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::Window;
use datafusion::prelude::SessionContext;

use super::super::{parse, plan};
use super::*;

const SECOND: i64 = 1_000_000;

/// Rows of (key, time in µs), a little random: before 1970, in ties, in sessions with gaps of exactly the limit.
fn rows() -> Vec<(i64, i64)> {
    let mut seed = 7_u64;
    let mut rows = Vec::new();
    let mut clock = -90 * SECOND;
    for _ in 0..400 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = i64::try_from(seed >> 33).unwrap_or(0);
        clock += [0, 1, SECOND, 10 * SECOND, 10 * SECOND + 1, 25 * SECOND, -3 * SECOND][usize::try_from(pick % 7).unwrap_or(0)];
        rows.push((pick / 7 % 3, clock));
    }
    rows
}

/// A multiset of (key, start, end, time).
type Windows = BTreeMap<(i64, i64, i64, i64), usize>;

fn count(windows: impl IntoIterator<Item = (i64, i64, i64, i64)>) -> Windows {
    windows.into_iter().fold(Windows::new(), |mut all, window| {
        *all.entry(window).or_default() += 1;
        all
    })
}

async fn run(from: &str) -> Windows {
    let text = format!(
        "CREATE TABLE t (k BIGINT NOT NULL, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = 'x');\n\
         CREATE MATERIALIZED VIEW v AS SELECT k, window_start, window_end, ts FROM {from};"
    );
    let planned = plan(&parse("test.sql", &text).expect("parses")).expect("plans").remove(0);
    let (keys, times): (Vec<i64>, Vec<i64>) = rows().into_iter().unzip();
    let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), Field::new("ts", TIMESTAMP, false)]));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(keys)), Arc::new(TimestampMicrosecondArray::from(times))]);
    let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema, vec![vec![batch.expect("rows")]]).expect("table"));
    let mut all = Vec::new();
    // Before and after the optimizer: both are run in practice.
    for plan in [planned.analyzed, planned.plan] {
        let shape: Vec<_> = plan.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.name().clone())).collect();
        let plan = to_batch(plan).expect("lowers");
        let lowered: Vec<_> = plan.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.name().clone())).collect();
        assert_eq!(shape, lowered);
        let plan = bind(plan, &|_| Ok(Some(Arc::clone(&table)))).expect("binds");
        let frame = SessionContext::new().execute_logical_plan(plan).await.expect("plans");
        let mut found = Vec::new();
        for batch in frame.collect().await.expect("runs") {
            let key = batch.column(0).as_primitive::<Int64Type>();
            let time = |index: usize| batch.column(index).as_primitive::<TimestampMicrosecondType>().clone();
            let (start, end, ts) = (time(1), time(2), time(3));
            assert_eq!(start.null_count() + end.null_count(), 0);
            found.extend((0..batch.num_rows()).map(|row| (key.value(row), start.value(row), end.value(row), ts.value(row))));
        }
        all.push(count(found));
    }
    assert_eq!(all.first(), all.last());
    all.remove(0)
}

#[tokio::test]
async fn tumble_is_the_floor_of_time() {
    let naive = |size: i64, offset: i64| {
        count(rows().into_iter().map(|(key, time)| {
            let start = (time - offset).div_euclid(size) * size + offset;
            (key, start, start + size, time)
        }))
    };
    assert_eq!(run("tumble(t, ts, INTERVAL '10 seconds')").await, naive(10 * SECOND, 0));
    assert_eq!(run("tumble(t, ts, INTERVAL '1 minute', INTERVAL '7 seconds')").await, naive(60 * SECOND, 7 * SECOND));
    assert_eq!(run("tumble(t, ts, INTERVAL '1 minute', INTERVAL '-7 seconds')").await, naive(60 * SECOND, 53 * SECOND));
}

#[tokio::test]
async fn hop_is_every_window_that_holds_the_row() {
    let naive = |slide: i64, size: i64| {
        count(rows().into_iter().flat_map(|(key, time)| {
            let last = time.div_euclid(slide) * slide;
            let starts = (0..=size / slide + 1).map(move |back| last - back * slide);
            starts.filter(move |start| *start <= time && time < start + size).map(move |start| (key, start, start + size, time))
        }))
    };
    for (slide, size) in [(1, 10), (10, 10), (4, 10), (10, 4), (7, 3)] {
        let found = run(&format!("hop(t, ts, INTERVAL '{slide} seconds', INTERVAL '{size} seconds')")).await;
        assert_eq!(found, naive(slide * SECOND, size * SECOND), "{slide} {size}");
    }
}

#[tokio::test]
async fn a_session_is_a_chain_of_rows_at_most_the_gap_apart() {
    let naive = |gap: i64, keyed: bool| {
        let mut chains: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        rows().into_iter().for_each(|(key, time)| chains.entry(if keyed { key } else { 0 }).or_default().push((time, key)));
        let mut all = Vec::new();
        for mut chain in chains.into_values() {
            chain.sort_unstable();
            let mut open: Vec<(i64, i64)> = Vec::new();
            let mut close = |open: &mut Vec<(i64, i64)>| {
                if let (Some((start, _)), Some((last, _))) = (open.first().copied(), open.last().copied()) {
                    all.extend(open.drain(..).map(|(time, key)| (key, start, last + gap, time)));
                }
            };
            for (time, key) in chain {
                if open.last().is_some_and(|(last, _)| time - last > gap) {
                    close(&mut open);
                }
                open.push((time, key));
            }
            close(&mut open);
        }
        count(all)
    };
    assert_eq!(run("session(t, ts, INTERVAL '10 seconds', k)").await, naive(10 * SECOND, true));
    assert_eq!(run("session(t, ts, INTERVAL '10 seconds')").await, naive(10 * SECOND, false));
    assert_eq!(run("session(t, ts, INTERVAL '1 us', k)").await, naive(1, true));
}

#[test]
fn ties_are_broken_behind_the_order_by() {
    let text = "CREATE TABLE t (k BIGINT NOT NULL, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts) WITH (connector = 'file', path = 'x');\n\
                CREATE MATERIALIZED VIEW v AS SELECT k, _offset FROM t QUALIFY row_number() OVER (PARTITION BY k ORDER BY ts) = 1;";
    let planned = plan(&parse("test.sql", text).expect("parses")).expect("plans").remove(0);
    let ties = |input: &LogicalPlan| {
        let offset = input.schema().columns().into_iter().find(|column| column.name == "_offset");
        offset.map(|column| Expr::Column(column).sort(true, false)).into_iter().collect()
    };
    let broken = planned.analyzed.clone().transform_up(|plan| match plan {
        LogicalPlan::Window(window) => {
            let keys: Vec<Sort> = ties(&window.input);
            let exprs = window.window_expr.iter().map(|expr| tied(expr, &keys)).collect();
            Ok(Transformed::yes(LogicalPlan::Window(Window::try_new(exprs, window.input)?)))
        }
        other => Ok(Transformed::no(other)),
    });
    let broken = broken.expect("breaks").data;
    assert_eq!(broken.schema(), planned.analyzed.schema());
    assert!(
        broken.display_indent().to_string().contains("ORDER BY [t.ts ASC NULLS LAST, t._offset ASC NULLS LAST]"),
        "{}",
        broken.display_indent()
    );
}

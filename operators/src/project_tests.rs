//! `Map` against bad rows, filters in order, and the account.

use super::*;
use arrow::array::{AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use tidemill_engine::rows::{RawRecord, RawRecords, Tokens};

struct Raw;

impl RawRecords for Raw {
    fn record(&self, _offset: i64) -> Option<RawRecord<'_>> {
        Some(RawRecord { key: Some(b"k"), payload: Some(b"{}"), timestamp_ms: Some(7) })
    }
}

/// `120 / a`, which fails on zero; counts the rows it saw.
struct Divide;

impl Expression for Divide {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let column = batch.column(0).as_primitive::<Int64Type>();
        let values = column.values().iter().map(|value| 120_i64.checked_div(*value).ok_or_else(|| Error::failed("division by zero")));
        Ok(Arc::new(Int64Array::from(values.collect::<Result<Vec<_>>>()?)))
    }
    fn text(&self) -> &str {
        "120 / a at 3:8"
    }
}

struct Greater(i64);

impl Expression for Greater {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let column = batch.column(0).as_primitive::<Int64Type>();
        Ok(Arc::new(BooleanArray::from_unary(column, |value| value > self.0)))
    }
    fn text(&self) -> &str {
        "a > ?"
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]))
}

fn rows(values: Vec<i64>, source: bool) -> Rows {
    let offsets: Arc<[i64]> = (100..100 + values.len() as i64).collect();
    let watermarks: Arc<[i64]> = values.iter().map(|_| i64::MIN).collect();
    let batch = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(values))]).expect("a batch");
    let mut rows = Rows::derived(batch, None, Tokens::Each(0));
    if source {
        rows.origin = Some(Origin { source: 0, partition: 3, offsets, watermarks, raw: Arc::new(Raw) });
    }
    rows
}

fn values(out: &Output) -> Vec<i64> {
    out.rows.iter().flat_map(|rows| rows.batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn each_failing_record_is_set_aside_and_the_rest_goes_on_in_order() {
    let mut map = Map::new(vec![Arc::new(Greater(-1))], vec![Arc::new(Divide)], schema());
    let mut out = Output::default();
    map.on_rows(0, rows(vec![1, 0, 2, -5, 0, 3, 4], true), &mut out).expect("goes on");
    assert_eq!(values(&out), vec![120, 60, 40, 30]);
    assert_eq!(out.dead.iter().map(|dead| dead.offset).collect::<Vec<_>>(), vec![101, 104]);
    let dead = &out.dead[0];
    assert_eq!((dead.reason.as_str(), dead.detail.as_str(), dead.partition), ("expression", "120 / a at 3:8: division by zero", 3));
    assert_eq!((dead.key.as_deref(), dead.payload.as_deref(), dead.timestamp_ms), (Some(&b"k"[..]), Some(&b"{}"[..]), Some(7)));
    let counts = *out.counts.of(0);
    let handed: usize = out.rows.iter().map(Rows::len).sum();
    assert_eq!((counts.dead, counts.filtered, handed), (2, 1, 4));
}

#[test]
fn an_expression_sees_only_what_passed_the_filters_before_it() {
    struct Positive(Divide);
    impl Expression for Positive {
        fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
            let column = self.0.evaluate(batch)?;
            Ok(Arc::new(BooleanArray::from_unary(column.as_primitive::<Int64Type>(), |value| value > 30)))
        }
        fn text(&self) -> &str {
            "120 / a > 30"
        }
    }
    let mut map = Map::new(vec![Arc::new(Greater(0)), Arc::new(Positive(Divide))], vec![Arc::new(Divide)], schema());
    let mut out = Output::default();
    map.on_rows(0, rows(vec![0, 1, 2, 0, 8], true), &mut out).expect("no division by zero");
    assert_eq!(values(&out), vec![120, 60]);
    assert_eq!((out.dead.len(), out.counts.of(0).filtered), (0, 3));
}

#[test]
fn a_derived_row_that_fails_stops_the_run_and_says_where() {
    let mut map = Map::new(Vec::new(), vec![Arc::new(Divide)], schema());
    let error = map.on_rows(0, rows(vec![1, 0], false), &mut Output::default()).expect_err("fails");
    assert!(error.message().starts_with("120 / a at 3:8: division by zero"), "{error}");
}

#[test]
fn a_joined_row_that_fails_is_the_dead_letter_of_the_record_it_is_of() {
    use arrow::array::{Int32Array, Int64Array, StringViewArray};
    struct NoSeven;
    impl Expression for NoSeven {
        fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
            let column = batch.column(0);
            match column.as_primitive::<Int64Type>().values().contains(&7) {
                true => Err(Error::failed("it can't be 7")),
                false => Ok(Arc::clone(column)),
            }
        }
        fn text(&self) -> &str {
            "x"
        }
    }
    let field = |name: &str, data_type| arrow::datatypes::Field::new(name, data_type, true);
    let input = Arc::new(arrow::datatypes::Schema::new(vec![
        field("x", arrow::datatypes::DataType::Int64),
        field("s", arrow::datatypes::DataType::Utf8View),
        field("p", arrow::datatypes::DataType::Int32),
        field("o", arrow::datatypes::DataType::Int64),
    ]));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![1, 7, 3])),
        Arc::new(StringViewArray::from(vec!["a", "a", "a"])),
        Arc::new(Int32Array::from(vec![0, 1, 2])),
        Arc::new(Int64Array::from(vec![10, 11, 12])),
    ];
    let batch = RecordBatch::try_new(input, columns).expect("one length");
    let ones: Arc<[i64]> = vec![1, 1, 1].into();
    let tokens = tidemill_engine::rows::Tokens::Counts(vec![(0, Arc::clone(&ones)), (1, ones)]);
    let schema = Arc::new(arrow::datatypes::Schema::new(vec![field("x", arrow::datatypes::DataType::Int64)]));
    let names = Names { at: 1, sources: vec![(0, "b".to_owned()), (1, "a".to_owned())] };
    let mut map = Map::new(Vec::new(), vec![Arc::new(NoSeven)], schema).with_names(Some(names));
    let mut out = Output::default();
    map.on_rows(0, Rows::derived(batch.clone(), None, tokens.clone()), &mut out).expect("goes on");
    assert_eq!(out.dead.iter().map(|letter| (letter.source, letter.partition, letter.offset)).collect::<Vec<_>>(), [(1, 1, 11)]);
    assert_eq!((out.counts.of(1).dead, out.counts.of(0).filtered), (1, 1));
    assert_eq!(out.rows.iter().map(Rows::len).sum::<usize>(), 2);
    // What is taken back again says nothing twice.
    let mut out = Output::default();
    let back = Rows::derived(batch, Some(vec![-1, -1, -1].into()), tidemill_engine::rows::Tokens::none());
    map.on_rows(0, back, &mut out).expect("goes on");
    assert_eq!((out.dead.len(), out.rows.iter().map(Rows::len).sum::<usize>()), (0, 2));
}

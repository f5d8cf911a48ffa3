//! Rows side by side: multisets, order of NULLs, nearness.

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

use super::*;

type Row3<'a> = (Option<&'a str>, i64, Option<f64>);

fn stream_of(rows: &[Row3<'_>], batch_rows: usize) -> (SchemaRef, SendableRecordBatchStream) {
    let mut rows = rows.to_vec();
    rows.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let batches: Vec<RecordBatch> = rows
        .chunks(batch_rows.max(1))
        .map(|rows| {
            let columns: [(&str, ArrayRef); 3] = [
                ("code", Arc::new(rows.iter().map(|row| row.0).collect::<StringArray>())),
                ("clicks", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
                ("mean", Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>())),
            ];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("one length")
        })
        .collect();
    let empty: [(&str, ArrayRef); 3] = [
        ("code", Arc::new(StringArray::from(Vec::<&str>::new()))),
        ("clicks", Arc::new(Int64Array::from(Vec::<i64>::new()))),
        ("mean", Arc::new(Float64Array::from(Vec::<f64>::new()))),
    ];
    let empty = RecordBatch::try_from_iter_with_nullable(empty.map(|(name, column)| (name, column, true))).expect("one length");
    let schema = empty.schema();
    let stream = RecordBatchStreamAdapter::new(Arc::clone(&schema), futures::stream::iter(batches.into_iter().map(Ok)));
    (schema, Box::pin(stream))
}

fn differences(wanted: &[Row3<'_>], found: &[Row3<'_>], grants: &[Grant]) -> (u64, u64) {
    let sizes = [1, 2, 100];
    let all: Vec<(u64, u64)> = sizes
        .iter()
        .map(|size| {
            let ((schema, wanted), (_, found)) = (stream_of(wanted, *size), stream_of(found, 101 - size));
            let compared = futures::executor::block_on(compare(&schema, grants, wanted, found, 2)).expect("compares");
            assert!(compared.missing.rows.len() <= 2 && compared.extra.rows.len() <= 2);
            (compared.missing.total, compared.extra.total)
        })
        .collect();
    assert!(all.iter().all(|each| *each == all[0]), "{all:?}");
    all[0]
}

#[test]
fn rows_are_a_multiset_to_the_last_bit() {
    let a = (Some("a"), 1, Some(0.5));
    let (b, none) = ((Some("b"), 2, None), (None, 3, Some(f64::NAN)));
    let exact = [Grant::Exact; 3];
    assert_eq!(differences(&[a, b, none], &[none, b, a], &exact), (0, 0));
    assert_eq!(differences(&[a, a, b], &[a, b, b], &exact), (1, 1));
    assert_eq!(differences(&[], &[a, b, none], &exact), (0, 3));
    assert_eq!(differences(&[a, b, none], &[], &exact), (3, 0));
    assert_eq!(differences(&[a], &[(Some("a"), 1, Some(0.5000000000000001))], &exact), (1, 1));
    assert_eq!(differences(&[(Some("a"), 1, None)], &[(None, 1, None)], &exact), (1, 1));
}

#[test]
fn approximate_columns_have_the_room_that_is_stated() {
    let near = [Grant::Exact, Grant::Exact, Grant::Near(0.01)];
    let row = |mean: f64| (Some("a"), 1, Some(mean));
    assert_eq!(differences(&[row(100.0)], &[row(101.0)], &near), (0, 0));
    assert_eq!(differences(&[row(100.0)], &[row(103.0)], &near), (1, 1));
    assert_eq!(differences(&[row(100.0)], &[(Some("a"), 1, None)], &near), (1, 1));
    // In a group each row has a partner of its own, in whatever order they come.
    assert_eq!(differences(&[row(100.0), row(200.0)], &[row(200.5), row(100.5)], &near), (0, 0));
    assert_eq!(differences(&[row(100.0), row(200.0)], &[row(100.0), row(100.5)], &near), (1, 1));
    // Beyond the stated error by less than twice: one is chance, many are not.
    let many = |by: f64| (0..40).map(|n| (Some("a"), n, Some(100.0 + by))).collect::<Vec<_>>();
    assert_eq!(differences(&[row(100.0)], &[row(101.5)], &near), (0, 0));
    assert_eq!(differences(&many(0.0), &many(1.5), &near), (40, 40));
}

#[test]
fn what_has_no_stated_error_is_not_compared() {
    let free = [Grant::Exact, Grant::Free, Grant::Exact];
    assert_eq!(differences(&[(Some("a"), 1, None)], &[(Some("a"), 2, None)], &free), (0, 0));
}

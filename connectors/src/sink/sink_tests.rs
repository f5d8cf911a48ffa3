//! The net of an epoch, and files: once each, also when an epoch is sent again, and none of another life.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

fn batch(rows: &[(Option<i64>, &str, i64)]) -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("k", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
        ("t", Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1)))),
        ("_weight", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2)))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("a batch")
}

#[test]
fn a_key_goes_out_once_with_its_newest_row() {
    use Change::{Gone, Row};
    let of = |rows: &[(Option<i64>, &str, i64)]| net(&batch(rows), &[0]).expect("a net");
    // New; repaired in both orders; gone; came and went; taken back and put again as it was; NULL is a key.
    assert_eq!(of(&[(Some(1), "a", 1), (Some(2), "b", 1)]), [Row(0), Row(1)]);
    assert_eq!(of(&[(Some(1), "a", -1), (Some(1), "b", 1)]), [Row(1)]);
    assert_eq!(of(&[(Some(1), "b", 1), (Some(1), "a", -1)]), [Row(0)]);
    assert_eq!(of(&[(Some(1), "a", -1)]), [Gone(0)]);
    assert_eq!(of(&[(Some(1), "a", 1), (Some(1), "a", -1)]), []);
    assert_eq!(of(&[(Some(1), "a", -1), (Some(1), "b", 1), (Some(1), "b", -1), (Some(1), "a", 1)]), []);
    assert_eq!(of(&[(Some(1), "a", -1), (Some(1), "b", 1), (Some(1), "b", -1)]), [Gone(2)]);
    assert_eq!(of(&[(None, "a", 1), (Some(7), "x", -1), (None, "a", -1), (None, "c", 1)]), [Gone(1), Row(3)]);
    // Rows that are only added are results each.
    assert_eq!(of(&[(Some(1), "a", 1), (Some(2), "b", 1), (Some(1), "c", 1)]), [Row(0), Row(1), Row(2)]);
}

#[test]
fn without_a_key_rows_go_out_as_often_as_they_came() {
    assert_eq!(net(&batch(&[(None, "a", 2), (None, "a", 1)]), &[]).expect("a net"), [Change::Row(0), Change::Row(0), Change::Row(1)]);
    assert!(net(&batch(&[(None, "a", -1)]), &[]).is_err(), "nothing is taken back");
}

fn manifest(uuid: &str, epoch: u64, delivered: u64) -> Manifest {
    let schema = batch(&[]).project(&[0, 1]).expect("two columns").schema();
    let entry = SinkEntry { name: "out".into(), schema: schema.as_ref().clone(), delivered, sealed: Vec::new() };
    let text = serde_json::json!({
        "format": 1, "epoch": epoch, "pipeline": "p", "uuid": uuid, "incarnation": "", "build": "", "hash_id": "", "plan": [], "workers": 1,
        "committed_at_ms": 0, "sources": [], "watermarks": [], "accounts": [], "state": [], "tables": [], "journal": null, "ended": false
    });
    let mut manifest: Manifest = serde_json::from_value(text).expect("a manifest");
    manifest.sinks.push(entry);
    manifest
}

fn sink(folder: &std::path::Path, parquet: bool) -> Sinks {
    let spec = SinkSpec { output: "out".into(), names: vec!["Key".into(), "t".into()], key: Vec::new(), key_as_json: false };
    Sinks::new(vec![Box::new(FileSink::new(folder, parquet, spec))])
}

fn files(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|file| file.expect("listed"))
        .map(|file| (file.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(file.path()).expect("text")))
        .collect();
    all.sort();
    all
}

#[test]
fn each_epoch_is_one_file_however_often_it_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let stop = AtomicBool::new(false);
    let rows = |text: &str| vec![(0, batch(&[(Some(1), text, 1), (None, "b", 2)]))];
    let mut first = sink(folder.path(), false);
    assert_eq!(first.begin(&manifest("0123456789", 2, 0)).expect("begins"), [Some(0)]);
    first.deliver(3, &rows("x"), &stop).expect("delivers");
    first.deliver(3, &rows("x"), &stop).expect("delivers again");
    first.deliver(5, &rows("y"), &stop).expect("delivers");
    std::fs::write(folder.path().join(".p-out-01234567-000000000006.ndjson.staged"), "half").expect("written");
    std::fs::write(folder.path().join("other.ndjson"), "").expect("written");
    let lines = |text: &str| format!("{{\"Key\":1,\"t\":\"{text}\"}}\n{{\"Key\":null,\"t\":\"b\"}}\n{{\"Key\":null,\"t\":\"b\"}}\n");
    let mut again = sink(folder.path(), false);
    assert_eq!(again.begin(&manifest("0123456789", 7, 3)).expect("begins"), [Some(5)]);
    assert_eq!(
        files(folder.path()),
        [
            ("other.ndjson".to_owned(), String::new()),
            ("p-out-01234567-000000000003.ndjson".to_owned(), lines("x")),
            ("p-out-01234567-000000000005.ndjson".to_owned(), lines("y")),
        ]
    );
    // A consumer takes what it has read.
    std::fs::remove_file(folder.path().join("p-out-01234567-000000000005.ndjson")).expect("removed");
    assert_eq!(again.begin(&manifest("0123456789", 7, 5)).expect("begins"), [Some(5)]);
    let older = again.begin(&manifest("0123456789", 2, 0)).expect_err("an epoch nobody knows");
    assert!(older.message().contains("newest epoch is 2"), "{older}");
    let other = again.begin(&manifest("9999999999", 7, 0)).expect_err("another life");
    assert!(other.message().contains("another life of pipeline p"), "{other}");
}

#[test]
fn parquet_has_the_same_rows_under_the_same_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = sink(folder.path(), true);
    sink.begin(&manifest("0123456789", 0, 0)).expect("begins");
    sink.deliver(1, &[(0, batch(&[(Some(1), "x", 1), (None, "b", 2)]))], &AtomicBool::new(false)).expect("delivers");
    let file = std::fs::File::open(folder.path().join("p-out-01234567-000000000001.parquet")).expect("there");
    let batches: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(file)
        .expect("parquet")
        .build()
        .expect("reads")
        .map(|batch| batch.expect("rows"))
        .collect();
    let names: Vec<String> = batches[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!((names.join(","), batches.iter().map(RecordBatch::num_rows).sum::<usize>()), ("Key,t".to_owned(), 3));
}

//! Tests of `format`.

use super::*;
use crate::json::TimeUnitOption;
use crate::tombstone::{DELETED_COLUMN, KeyFormat};
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};

struct Nothing;

impl RawRecords for Nothing {
    fn record(&self, _: i64) -> Option<RawRecord<'_>> {
        None
    }
}

fn column(name: &str, data_type: DataType, build: bool) -> Column {
    Column { name: name.into(), path: vec![name.into()], data_type, nullable: false, unit: TimeUnitOption::Ms, build }
}

fn record<'a>(key: Option<&'a [u8]>, payload: Option<&'a [u8]>, timestamp_ms: Option<i64>) -> RawRecord<'a> {
    RawRecord { key, payload, timestamp_ms }
}

fn decoder(hidden: Vec<Hidden>) -> RecordDecoder {
    let columns = vec![column("a", DataType::Int64, true), column("unread", DataType::Int64, false)];
    RecordDecoder::new("a topic with a long name", &DecodeConfig { columns, hidden, ..DecodeConfig::default() }).expect("plain types")
}

#[test]
fn rows_carry_the_hidden_columns_and_bad_records_their_whole_bytes() {
    let mut decoder = decoder(Hidden::ALL.to_vec());
    decoder.begin(3);
    decoder.push(10, record(Some(b"k"), Some(br#"{"a":1,"unread":1}"#), Some(5)));
    decoder.push(12, record(Some(b"dead"), None, Some(6)));
    decoder.push(13, record(None, Some(b""), Some(7)));
    decoder.push(14, record(None, Some(br#"{"a":2,"unread":"no"}"#), Some(8)));
    decoder.push(20, record(None, Some(br#"{"a":3,"unread":1}"#), Some(9)));
    let read = decoder.finish(25, Arc::new(Nothing)).expect("a batch");
    assert_eq!((read.records, read.bytes, read.next), (5, 18 + 21 + 18, 25));
    assert_eq!((read.offsets.clone(), read.timestamps_ms.clone()), (vec![10, 20], vec![5, 9]));
    let batch = &read.batch;
    assert_eq!(batch.schema(), decoder.schema());
    assert_eq!(batch["a"].as_primitive::<Int64Type>().values(), &[1, 3]);
    assert_eq!(batch["_topic"].as_string_view().iter().collect::<Vec<_>>(), [Some("a topic with a long name"); 2]);
    assert_eq!(batch["_partition"].as_primitive::<Int32Type>().values(), &[3, 3]);
    assert_eq!(batch["_offset"].as_primitive::<Int64Type>().values(), &[10, 20]);
    assert_eq!(batch["_timestamp"].as_primitive::<TimestampMicrosecondType>().values(), &[5000, 9000]);
    assert_eq!(batch["_key"].as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&b"k"[..]), None]);
    let dead: Vec<_> =
        read.dead.iter().map(|letter| (letter.partition, letter.offset, letter.reason.as_str(), letter.timestamp_ms)).collect();
    assert_eq!(dead, [(3, 12, "null_payload", Some(6)), (3, 13, "empty", Some(7)), (3, 14, "type", Some(8))]);
    assert_eq!((read.dead[0].key.as_deref(), &read.dead[0].payload), (Some(&b"dead"[..]), &None));
    assert_eq!((&read.dead[1].key, read.dead[1].payload.as_deref()), (&None, Some(&b""[..])));
    assert_eq!(read.dead[2].payload.as_deref(), Some(&br#"{"a":2,"unread":"no"}"#[..]));
}

#[test]
fn a_batch_starts_anew_after_finish_and_may_be_empty() {
    let mut decoder = decoder(vec![Hidden::Key, Hidden::Timestamp]);
    decoder.begin(0);
    decoder.push(1, record(None, Some(br#"{"a":1,"unread":1}"#), None));
    let read = decoder.finish(2, Arc::new(Nothing)).expect("a batch");
    assert!(read.timestamps_ms.is_empty(), "the record has none");
    assert_eq!(read.batch["_timestamp"].null_count(), 1);
    let empty = decoder.finish(9, Arc::new(Nothing)).expect("an empty batch");
    assert_eq!((empty.batch.num_rows(), empty.records, empty.next, empty.dead.len()), (0, 0, 9, 0));
}

#[test]
fn rows_are_counted_when_no_column_is_read() {
    let config = DecodeConfig { columns: vec![column("a", DataType::Int64, false)], ..DecodeConfig::default() };
    let mut decoder = RecordDecoder::new("t", &config).expect("plain types");
    decoder.push(1, record(None, Some(br#"{"a":1}"#), None));
    assert_eq!(decoder.finish(2, Arc::new(Nothing)).expect("a batch").batch.num_rows(), 1);
}

fn changelog(key: &[(&str, DataType)], format: KeyFormat) -> RecordDecoder {
    let mut columns: Vec<Column> = key.iter().map(|(name, data_type)| column(name, data_type.clone(), true)).collect();
    columns.push(Column { path: vec!["deep".into(), "city".into()], ..column("city", crate::json::TEXT_TYPE, true) });
    columns.push(column("ts", DataType::Timestamp(TimeUnit::Microsecond, None), true));
    let key = key.iter().enumerate().map(|(index, (name, _))| (index, (*name).to_owned())).collect::<Vec<_>>();
    let changelog = Changelog { time: Some(key.len() + 1), key, format };
    let config = DecodeConfig { columns, hidden: vec![Hidden::Offset], changelog: Some(changelog), ..DecodeConfig::default() };
    RecordDecoder::new("people", &config).expect("plain types")
}

#[test]
fn a_null_payload_deletes_the_key_that_the_record_has() {
    let mut decoder = changelog(&[("id", DataType::Int64)], KeyFormat::Text);
    decoder.begin(0);
    decoder.push(1, record(Some(b"7"), None, Some(5)));
    decoder.push(2, record(Some(b"7"), Some(br#"{"id":7,"deep":{"city":"a"},"ts":9}"#), Some(6)));
    decoder.push(3, record(Some(b"seven"), None, Some(7)));
    decoder.push(4, record(None, None, Some(7)));
    decoder.push(5, record(Some(b"\xff"), None, Some(7)));
    decoder.push(6, record(Some(b"-8"), None, Some(8)));
    let read = decoder.finish(7, Arc::new(Nothing)).expect("a batch");
    let batch = &read.batch;
    assert_eq!(batch["id"].as_primitive::<Int64Type>().values(), &[7, 7, -8]);
    assert_eq!(batch["city"].as_string_view().iter().collect::<Vec<_>>(), [None, Some("a"), None]);
    assert_eq!(batch["ts"].as_primitive::<TimestampMicrosecondType>().values(), &[5000, 9000, 8000]);
    assert_eq!(batch["_offset"].as_primitive::<Int64Type>().values(), &[1, 2, 6]);
    assert_eq!(batch[DELETED_COLUMN].as_boolean().iter().collect::<Vec<_>>(), [Some(true), Some(false), Some(true)]);
    let dead: Vec<_> = read.dead.iter().map(|letter| (letter.offset, letter.reason.as_str())).collect();
    assert_eq!(dead, [(3, "key"), (4, "key"), (5, "key")]);
    assert!(read.dead[0].detail.contains("column \"id\""), "{}", read.dead[0].detail);
    assert!(read.dead[1].detail.ends_with("it is null"), "{}", read.dead[1].detail);
    // The next batch begins anew, and may hold upserts alone.
    decoder.push(7, record(None, Some(br#"{"id":1,"deep":{"city":"b"},"ts":9}"#), Some(6)));
    let read = decoder.finish(8, Arc::new(Nothing)).expect("a batch");
    assert_eq!(read.batch[DELETED_COLUMN].as_boolean().iter().collect::<Vec<_>>(), [Some(false)]);
}

#[test]
fn a_key_in_json_is_an_object_or_the_one_value() {
    let mut decoder = changelog(&[("id", DataType::Int64)], KeyFormat::Json);
    for (offset, key) in (0..).zip([" 4 ", r#"{"id":5,"more":[]}"#, r#""6""#, r#"7,"id":8"#, "{}", "null", r#"{"id":9}}"#]) {
        decoder.push(offset, record(Some(key.as_bytes()), None, Some(1)));
    }
    let read = decoder.finish(9, Arc::new(Nothing)).expect("a batch");
    assert_eq!(read.batch["id"].as_primitive::<Int64Type>().values(), &[4, 5]);
    assert_eq!(read.dead.iter().map(|letter| letter.offset).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    let mut decoder = changelog(&[("id", DataType::Int64), ("name", crate::json::TEXT_TYPE)], KeyFormat::Json);
    decoder.push(0, record(Some(br#"{"name":"a","id":5}"#), None, Some(1)));
    decoder.push(1, record(Some(br#"{"id":5}"#), None, Some(1)));
    let read = decoder.finish(9, Arc::new(Nothing)).expect("a batch");
    assert_eq!(read.batch["name"].as_string_view().iter().collect::<Vec<_>>(), [Some("a")]);
    assert_eq!(read.dead.len(), 1);
}

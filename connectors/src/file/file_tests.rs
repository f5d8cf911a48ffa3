//! Tests of the file source.

use super::*;
use crate::format::Hidden;
use crate::json::{Column, TimeUnitOption};
use arrow::array::{
    Array, AsArray, BinaryArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use tidemill_engine::source::ReadBatch;

const ALL: Limits = Limits { rows_max: 10_000, bytes_max: usize::MAX, end: i64::MAX };

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidemill-file-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn column(name: &str, data_type: DataType, nullable: bool) -> Column {
    Column { name: name.into(), path: vec![name.into()], data_type, nullable, unit: TimeUnitOption::Ms, build: true }
}

fn open(path: &Path, format: FileFormat, columns: Vec<Column>, positions: &[(i32, i64)]) -> Result<Box<dyn Source>> {
    let decode = DecodeConfig { columns, hidden: vec![Hidden::Topic, Hidden::Timestamp], ..DecodeConfig::default() };
    let mut source = file_source(FileConfig::find(path, format)?, decode)?()?;
    source.assign(positions)?;
    Ok(source)
}

fn read(path: &Path, format: FileFormat, columns: Vec<Column>) -> ReadBatch {
    let mut source = open(path, format, columns, &[(0, 0)]).expect("opens");
    let polled = source.poll(0, ALL).expect("no error");
    assert!(polled.at_end);
    let read = polled.read.expect("records");
    assert_eq!(FileConfig::find(path, format).and_then(|config| config.end_offsets()).expect("counts"), [(0, read.next)]);
    read
}

fn letters(read: &ReadBatch) -> Vec<(i64, &str, &[u8])> {
    read.dead.iter().map(|letter| (letter.offset, letter.reason.as_str(), letter.payload.as_deref().unwrap_or_default())).collect()
}

fn n() -> Vec<Column> {
    vec![column("n", DataType::Int64, false)]
}

#[test]
fn lines_are_counted_from_zero_and_an_empty_one_in_between_is_a_letter() {
    let folder = Folder::new("lines");
    let path = folder.write("a.ndjson", "{\"n\":1}\n\n{\"n\":2}\r\n{\"n\":x}\n{\"n\":3}");
    let read = read(&path, FileFormat::Json, n());
    assert_eq!((read.offsets.clone(), read.next, read.records), (vec![0, 2, 4], 5, 5));
    assert_eq!(letters(&read), [(1, "empty", &b""[..]), (3, "not_json", &b"{\"n\":x}"[..])]);
    assert!(read.timestamps_ms.is_empty() && read.batch["_timestamp"].null_count() == 3);
    assert_eq!(read.batch["_topic"].as_string_view().value(0), path.to_string_lossy());
    assert_eq!(read.raw.record(2).expect("kept").payload, Some(&b"{\"n\":2}\r"[..]));
}

#[test]
fn a_folder_is_read_in_the_order_of_names_and_resumed() {
    let folder = Folder::new("folder");
    folder.write("b.json", "{\"n\":10}\n{\"n\":11}\n{\"n\":12}\n");
    folder.write("a.ndjson", "{\"n\":1}\n");
    folder.write(".hidden.json", "x");
    folder.write("c.txt", "x");
    let config = FileConfig::find(&folder.0, FileFormat::Json).expect("files");
    assert_eq!((config.partitions(), config.files[0].file_name()), (2, Some("a.ndjson".as_ref())));
    let mut source = open(&folder.0, FileFormat::Json, n(), &[(1, 1)]).expect("opens");
    let one = source.poll(1, Limits { rows_max: 1, ..ALL }).expect("no error").read.expect("a record");
    assert_eq!((one.offsets, one.next), (vec![1], 2));
    let rest = source.poll(1, Limits { end: 3, ..ALL }).expect("no error");
    assert_eq!(rest.read.expect("a record").batch["n"].as_primitive::<Int64Type>().values(), &[12]);
    let end = source.poll(1, ALL).expect("no error");
    assert!(end.at_end && end.read.is_none());
    assert!(source.poll(0, ALL).is_err(), "not assigned");
}

#[test]
fn a_line_too_long_is_a_letter_with_all_its_bytes() {
    let folder = Folder::new("long");
    let long = vec![b'x'; RECORD_BYTES_MAX + 1];
    let path = folder.write("a.json", [&long[..], b"\n{\"n\":1}\n"].concat());
    let read = read(&path, FileFormat::Json, n());
    assert_eq!((read.offsets.clone(), read.dead[0].reason.as_str()), (vec![1], "too_long"));
    assert!(read.dead[0].payload.as_ref() == Some(&long), "whole");
}

#[test]
fn what_is_not_there_is_refused() {
    let folder = Folder::new("absent");
    for (path, word) in [(folder.0.join("no.json"), "No such file"), (folder.0.clone(), "no file that ends in .ndjson")] {
        let error = FileConfig::find(&path, FileFormat::Json).expect_err("refused");
        assert!(error.message().contains(word), "{error}");
    }
    let path = folder.write("a.csv", "m\n1\n");
    let error = open(&path, FileFormat::Csv, n(), &[(0, 0)]).map(|_| ()).expect_err("refused");
    assert!(error.message().contains("no \"n\"") && error.message().contains("a.csv"), "{error}");
}

#[test]
fn csv_tells_null_from_empty_and_spans_lines_in_quotes() {
    let folder = Folder::new("csv");
    let text = "\u{feff}n,text,price,at,ok\r\n1,plain,1.10,2026-01-02T03:04:05Z,true\r\n2,\"a \"\"b\"\",\nc\",,,\r\n3,\"\",,,false\n4,x\n\n5,a\"b,,,\n6,\"a\"b,,,\nx,,,,\n7,ß,,,";
    let path = folder.write("a.csv", text);
    let columns = vec![
        column("n", DataType::Int64, false),
        column("text", DataType::Utf8View, true),
        column("price", DataType::Decimal128(10, 2), true),
        column("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        column("ok", DataType::Boolean, true),
        column("absent", DataType::Int64, true),
    ];
    let read = read(&path, FileFormat::Csv, columns);
    let batch = &read.batch;
    assert_eq!(read.offsets, [0, 1, 2, 8]);
    assert_eq!(batch["n"].as_primitive::<Int64Type>().values(), &[1, 2, 3, 7]);
    assert_eq!(batch["text"].as_string_view().iter().collect::<Vec<_>>(), [Some("plain"), Some("a \"b\",\nc"), Some(""), Some("ß")]);
    assert_eq!(batch["price"].as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(), [Some(110), None, None, None]);
    assert_eq!(batch["at"].as_primitive::<TimestampMicrosecondType>().value(0), 1_767_323_045_000_000);
    assert_eq!(batch["ok"].as_boolean().iter().collect::<Vec<_>>(), [Some(true), None, Some(false), None]);
    assert_eq!(batch["absent"].null_count(), 4);
    let reasons: Vec<_> = letters(&read).into_iter().map(|(offset, reason, _)| (offset, reason)).collect();
    assert_eq!(reasons, [(3, "csv"), (4, "empty"), (5, "csv"), (6, "csv"), (7, "type")]);
    assert_eq!(letters(&read)[0].2, b"4,x");
    assert_eq!(read.raw.record(1).expect("kept").payload, Some(&b"2,\"a \"\"b\"\",\nc\",,,"[..]));
}

#[test]
fn parquet_keeps_every_digit_and_sets_nan_aside() {
    let folder = Folder::new("parquet");
    let path = folder.0.join("a.parquet");
    let schema = Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("unread", DataType::Utf8, true),
        Field::new("price", DataType::Decimal128(38, 9), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("rate", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
    ]));
    let price = 12_345_678_901_234_567_890_123_456_789_i128;
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(Int64Array::from(vec![i64::MAX, 2, 3])),
            Arc::new(StringArray::from(vec!["x", "y", "z"])),
            Arc::new(Decimal128Array::from(vec![Some(price), None, Some(-1)]).with_precision_and_scale(38, 9).expect("fits")),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_767_323_045_123_456), None, Some(-1)]).with_timezone("UTC")),
            Arc::new(BinaryArray::from(vec![Some(&[0_u8, 255, 7, 9][..]), None, Some(b"ab")])),
            Arc::new(Float64Array::from(vec![Some(0.1), Some(f64::NAN), Some(-2.5e-300)])),
            Arc::new(StringArray::from(vec![Some("a\n\"b\""), None, Some("")])),
        ],
    )
    .expect("a batch");
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&path).expect("a file"), schema, None).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let columns = vec![
        column("n", DataType::Int64, false),
        column("price", DataType::Decimal128(38, 9), true),
        column("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        column("bytes", DataType::Binary, true),
        column("rate", DataType::Float64, true),
        column("text", DataType::Utf8View, true),
    ];
    let read = read(&path, FileFormat::Parquet, columns);
    let rows = &read.batch;
    assert_eq!(rows["n"].as_primitive::<Int64Type>().values(), &[i64::MAX, 3]);
    assert_eq!(rows["price"].as_primitive::<Decimal128Type>().values(), &[price, -1]);
    assert_eq!(rows["at"].as_primitive::<TimestampMicrosecondType>().values(), &[1_767_323_045_123_456, -1]);
    assert_eq!(rows["bytes"].as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&[0_u8, 255, 7, 9][..]), Some(b"ab")]);
    assert_eq!(rows["rate"].as_primitive::<arrow::datatypes::Float64Type>().values(), &[0.1, -2.5e-300]);
    assert_eq!(rows["text"].as_string_view().iter().collect::<Vec<_>>(), [Some("a\n\"b\""), Some("")]);
    assert_eq!(read.dead.iter().map(|letter| (letter.offset, letter.reason.as_str())).collect::<Vec<_>>(), [(1, "range")]);
}

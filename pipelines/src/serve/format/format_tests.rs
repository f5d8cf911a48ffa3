//! Each format against text written by hand.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StringViewArray, StructArray,
    TimestampMicrosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use tidemill_engine::epoch::segment::read_batches;

use super::*;

fn batch() -> RecordBatch {
    let decimals = Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(38, 2).expect("fits");
    let inner: Vec<(Arc<Field>, ArrayRef)> = vec![
        (Arc::new(Field::new("ip", DataType::Utf8View, true)), Arc::new(StringViewArray::from(vec![Some("a\"b"), None]))),
        (Arc::new(Field::new("n", DataType::Int64, true)), Arc::new(Int64Array::from(vec![1, 2]))),
    ];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 0]))),
        ("f", Arc::new(Float64Array::from(vec![0.1, f64::NAN]))),
        ("d", Arc::new(decimals)),
        ("t", Arc::new(StringViewArray::from(vec![Some("a,\"b\"\n"), Some("")]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![1_735_689_600_000_000, -1]))),
        ("day", Arc::new(Date32Array::from(vec![0, 20089]))),
        ("raw", Arc::new(BinaryArray::from(vec![b"\x00\xffhi".as_slice(), b""]))),
        ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]))),
        ("s", Arc::new(StructArray::from(inner))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).expect("a batch")
}

fn printed(format: Format) -> Vec<u8> {
    let mut out = Vec::new();
    let batch = batch();
    let mut printer = Printer::new(format, &batch.schema(), &mut out).expect("begins");
    printer.write(&batch).expect("writes");
    assert_eq!(printer.finish().expect("ends"), 2);
    out
}

#[test]
fn json_keeps_digits_and_says_what_json_has_no_number_for() {
    let expected = concat!(
        r#"{"i":9223372036854775807,"u":18446744073709551615,"f":0.1,"d":-0.05,"t":"a,\"b\"\n","b":true,"at":"2025-01-01T00:00:00Z","#,
        r#""day":"1970-01-01","raw":"AP9oaQ==","l":[1,null],"s":{"ip":"a\"b","n":1}}"#,
        "\n",
        r#"{"i":null,"u":0,"f":"NaN","d":null,"t":"","b":null,"at":"1969-12-31T23:59:59.999999Z","day":"2025-01-01","raw":"","l":null,"#,
        r#""s":{"ip":null,"n":2}}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(printed(Format::Json)).expect("text"), expected);
}

#[test]
fn csv_tells_null_from_the_empty_string() {
    let expected = concat!(
        "i,u,f,d,t,b,at,day,raw,l,s\n",
        r##"9223372036854775807,18446744073709551615,0.1,-0.05,"a,""b"""##,
        "\n",
        r#"",true,2025-01-01T00:00:00Z,1970-01-01,AP9oaQ==,"[1,null]","{""ip"":""a\""b"",""n"":1}""#,
        "\n",
        r#",0,NaN,,"",,1969-12-31T23:59:59.999999Z,2025-01-01,"",,"{""ip"":null,""n"":2}""#,
        "\n"
    );
    assert_eq!(String::from_utf8(printed(Format::Csv)).expect("text"), expected);
}

#[test]
fn a_table_is_aligned_and_counted() {
    let batch = batch().project(&[0, 4, 6]).expect("columns");
    let mut out = Vec::new();
    let mut printer = Printer::new(Format::Table, &batch.schema(), &mut out).expect("begins");
    printer.write(&batch).expect("writes");
    printer.finish().expect("ends");
    let expected = concat!(
        "          i          |    t    |             at\n",
        "---------------------+---------+----------------------------\n",
        " 9223372036854775807 | a,\"b\"\\n | 2025-01-01 00:00:00\n",
        "                     |         | 1969-12-31 23:59:59.999999\n",
        "(2 rows)\n"
    );
    assert_eq!(String::from_utf8(out).expect("text"), expected);
}

#[test]
fn arrow_reads_back() {
    let (_, batches) = read_batches(&printed(Format::Arrow)).expect("reads");
    assert_eq!(batches, vec![batch()]);
}

#[test]
fn a_format_nobody_knows_is_refused() {
    assert!("xml".parse::<Format>().expect_err("refused").message().contains("csv"));
    assert_eq!("json".parse::<Format>().expect("known").to_string(), "json");
}

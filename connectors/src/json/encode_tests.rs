//! The encoder against serde_json and chrono, and back through the decoder.

use std::sync::Arc;

use arrow::array::{Int32Builder, ListBuilder};
use arrow::datatypes::{Field, Fields};
use serde_json::{Value, json};

use super::*;

fn written(names: &[&str], columns: Vec<ArrayRef>) -> Vec<String> {
    let encoder = JsonEncoder::new(names.iter().copied());
    let rows = encoder.rows(&columns).expect("types of a sink");
    let line = |row: usize| {
        let mut line = Vec::new();
        rows.write(row, &mut line);
        String::from_utf8(line).expect("UTF-8")
    };
    (0..columns[0].len()).map(line).collect()
}

fn one(column: ArrayRef) -> Vec<String> {
    let strip = |line: String| line.strip_prefix("{\"a\":").and_then(|rest| rest.strip_suffix('}')).expect("one field").to_owned();
    written(&["a"], vec![column]).into_iter().map(strip).collect()
}

#[test]
fn every_type_is_what_serde_reads() {
    let names = ["Flag", "small", "n", "big", "r", "d", "money", "name \"x\"", "raw", "day", "at", "tags", "where"];
    let mut tags = ListBuilder::new(Int32Builder::new());
    tags.append_value([Some(1), None, Some(-3)]);
    tags.append_null();
    let place: Fields = vec![Field::new("City", DataType::Utf8View, true), Field::new("zip", DataType::Int64, true)].into();
    let inner: Vec<ArrayRef> =
        vec![Arc::new(StringViewArray::from(vec![Some("Köln"), None])), Arc::new(Int64Array::from(vec![Some(50_667), None]))];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None])),
        Arc::new(Int32Array::from(vec![Some(-7), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MAX), None])),
        Arc::new(Float32Array::from(vec![Some(0.1), None])),
        Arc::new(Float64Array::from(vec![Some(1e300), None])),
        Arc::new(Decimal128Array::from(vec![Some(-5), None]).with_precision_and_scale(18, 2).expect("fits")),
        Arc::new(StringViewArray::from(vec![Some("a \"quoted\" \\ line\nand \u{1} é 💡"), None])),
        Arc::new(BinaryArray::from(vec![Some(&[0_u8, 255, 16, 9][..]), None])),
        Arc::new(Date32Array::from(vec![Some(20_454), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_767_225_600_000_000), None])),
        Arc::new(tags.finish()),
        Arc::new(StructArray::try_new(place, inner, Some(vec![true, false].into())).expect("a struct")),
    ];
    let lines = written(&names, columns);
    let first: Value = serde_json::from_str(&lines[0]).expect("JSON");
    let expected = json!({
        "Flag": true, "small": i16::MIN, "n": -7, "big": i64::MAX, "r": 0.1, "d": 1e300, "money": -0.05,
        "name \"x\"": "a \"quoted\" \\ line\nand \u{1} é 💡", "raw": "AP8QCQ==", "day": "2026-01-01", "at": "2026-01-01T00:00:00Z",
        "tags": [1, null, -3], "where": {"City": "Köln", "zip": 50_667}
    });
    assert_eq!(first, expected);
    let second: Value = serde_json::from_str(&lines[1]).expect("JSON");
    let nulls = second.as_object().expect("an object");
    assert_eq!((nulls.len(), nulls.values().all(Value::is_null)), (names.len(), true), "every column is there: {second}");
    assert!(lines[0].starts_with("{\"Flag\":true,\"small\":-32768,"), "in the order of the columns: {}", lines[0]);
}

#[test]
fn numbers_keep_all_their_digits() {
    let ints = Int64Array::from(vec![0, 7, -1, i64::MIN, i64::MAX, 10_000_000_000]);
    assert_eq!(one(Arc::new(ints.clone())), ints.values().iter().map(i64::to_string).collect::<Vec<_>>());
    let decimals = |values: Vec<i128>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).expect("fits"))
    };
    let nines = 10_i128.pow(38) - 1;
    assert_eq!(one(decimals(vec![0, 1, -1, 100, -123_456], 18, 2)), ["0.00", "0.01", "-0.01", "1.00", "-1234.56"]);
    assert_eq!(one(decimals(vec![nines, -nines], 38, 0)), ["9".repeat(38), format!("-{}", "9".repeat(38))]);
    assert_eq!(one(decimals(vec![nines, 1], 38, 38)), [format!("0.{}", "9".repeat(38)), format!("0.{}1", "0".repeat(37))]);
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.1, -0.0, 5e-324, f64::MAX, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]));
    let read: Vec<f64> = one(Arc::clone(&floats)).iter().take(4).map(|text| serde_json::from_str(text).expect("a number")).collect();
    assert_eq!(read.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), [0.1, -0.0, 5e-324, f64::MAX].map(f64::to_bits));
    assert_eq!(one(floats)[4..], ["\"NaN\"", "\"Infinity\"", "\"-Infinity\""]);
    let reals: ArrayRef = Arc::new(Float32Array::from(vec![0.1, f32::MIN_POSITIVE, f32::NAN]));
    assert_eq!(one(reals), ["0.1", "1.1754944e-38", "\"NaN\""]);
}

#[test]
fn times_are_rfc_3339_on_every_day_there_is() {
    for days in (-719_162..=2_932_896).step_by(17).chain([-719_162, -1, 0, 59, 789, 11_016, 2_932_896]) {
        let expected = chrono::DateTime::from_timestamp(days * 86_400, 0).expect("a day").format("%Y-%m-%d").to_string();
        let mut text = Vec::new();
        date(days, &mut text);
        assert_eq!(String::from_utf8(text).expect("UTF-8"), expected, "day {days}");
    }
    let at = |micros: i64| {
        let mut text = Vec::new();
        timestamp(micros, &mut text);
        String::from_utf8(text).expect("UTF-8")
    };
    assert_eq!(at(-1), "1969-12-31T23:59:59.999999Z");
    assert_eq!(at(1_767_225_600_120_000), "2026-01-01T00:00:00.120Z");
    assert_eq!(at(253_402_300_799_999_999), "9999-12-31T23:59:59.999999Z");
    assert_eq!(at(i64::MIN), i64::MIN.to_string(), "no calendar has it");
}

#[test]
fn strings_are_what_serde_writes() {
    let mut texts: Vec<String> = (0..0x80_u32).filter_map(char::from_u32).map(|c| format!("a{c}b")).collect();
    texts.extend(["", "\u{7f}\u{80}\u{2028}", "\\\\\"", "日本語 💡"].map(str::to_owned));
    let found = one(Arc::new(StringViewArray::from_iter_values(&texts)));
    for (text, found) in texts.iter().zip(found) {
        assert_eq!(serde_json::from_str::<String>(&found).expect("a string"), *text);
        if !text.contains(['\u{8}', '\u{c}']) {
            assert_eq!(found, serde_json::to_string(text).expect("serde writes it"));
        }
    }
}

#[test]
fn slices_and_lists_of_structs() {
    let fields: Fields = vec![Field::new("k", DataType::Int64, true)].into();
    let values = StructArray::try_new(fields.clone(), vec![Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef], None).expect("a struct");
    let item = Arc::new(Field::new("item", DataType::Struct(fields), true));
    let offsets = arrow::buffer::OffsetBuffer::new(vec![0, 1, 1, 3].into());
    let list: ArrayRef = Arc::new(ListArray::try_new(item, offsets, Arc::new(values), None).expect("a list"));
    assert_eq!(one(list.slice(1, 2)), ["[]", "[{\"k\":2},{\"k\":3}]"]);
}

#[test]
fn a_key_as_text_has_no_quotes() {
    let encoder = JsonEncoder::new(["k"]);
    let columns: Vec<ArrayRef> = vec![Arc::new(StringViewArray::from(vec![Some("a\"b"), None]))];
    let rows = encoder.rows(&columns).expect("a text");
    let mut key = Vec::new();
    assert!(rows.write_text(0, &mut key));
    assert_eq!(key, b"a\"b");
    assert!(!rows.write_text(1, &mut key));
}

//! Payloads and what is to be said of them, written by hand: the reason, the byte, and for values what they become.

use super::oracle;
use super::tests::{MICROS, column, list, structure};
use super::*;
use Reason::*;

/// A payload of a record with `a BIGINT NOT NULL, s VARCHAR`: good, or the reason and the byte.
const PAYLOADS: &[(&[u8], Option<(Reason, usize)>)] = &[
    (br#"{"a":1}"#, None),
    (br#"{"a":1,"s":"x"}"#, None),
    (br#"{"s":null,"a":1}"#, None),
    (b" \t\r\n{ \"a\" : 1 } \n", None),
    (br#"{"a":1,"zz":{"deep":[1,2,{"x":[]}]}}"#, None),
    (br#"{"a":1,"zz":1e400}"#, None),
    (br#"{"a":1,"":""}"#, None),
    (br#"{"\u0061":1}"#, None),
    (br#"{"\u0061":"x","a":1}"#, None),
    (br#"{"a":1,"\u0061":"x"}"#, Some((Type, 16))),
    (br#"{"a":"x","a":1}"#, None),
    (br#"{"a":1,"a":"x"}"#, Some((Type, 11))),
    (br#"{"a":1,"a":null}"#, Some((Null, 11))),
    (br#"{"a":null,"a":1}"#, None),
    (br#"{"a":1,"s":1,"s":"x"}"#, None),
    (br#"{"a":1,"s":"\ud83d\ude00 \u0000 \/"}"#, None),
    ("{\"a\":1,\"s\":\"é😀\u{7f}\"}".as_bytes(), None),
    (b"", Some((Empty, 0))),
    (b" \n ", Some((Empty, 3))),
    (b"\xef\xbb\xbf{\"a\":1}", Some((ByteOrderMark, 0))),
    (b"\xef\xbb\xbf", Some((ByteOrderMark, 0))),
    (b"null", Some((NotObject, 0))),
    (b" [1]", Some((NotObject, 1))),
    (b"1", Some((NotObject, 0))),
    (b"\"{}\"", Some((NotObject, 0))),
    (b"true", Some((NotObject, 0))),
    (b"nul", Some((Truncated, 3))),
    (b"nulx", Some((NotJson, 3))),
    (b"1 2", Some((NotJson, 2))),
    (b"[1", Some((Truncated, 2))),
    (b"\0", Some((NotJson, 0))),
    (b"{\"a\":1}\0", Some((TrailingBytes, 7))),
    (br#"{"a":1}{"a":1}"#, Some((TrailingBytes, 7))),
    (br#"{"a":1} x"#, Some((TrailingBytes, 8))),
    (br#"{"a":1},"#, Some((TrailingBytes, 7))),
    (br#"{"a":1}}"#, Some((TrailingBytes, 7))),
    (b"{", Some((Truncated, 1))),
    (b"{}", Some((Missing, 2))),
    (b"{ }", Some((Missing, 3))),
    (br#"{"s":"x"}"#, Some((Missing, 9))),
    (br#"{"A":1}"#, Some((Missing, 7))),
    (br#"{"a":null}"#, Some((Null, 5))),
    (br#"{"a"}"#, Some((NotJson, 4))),
    (br#"{"a":}"#, Some((NotJson, 5))),
    (br#"{"a":1"#, Some((Truncated, 6))),
    (br#"{"a":1,"#, Some((Truncated, 7))),
    (br#"{"a":1,}"#, Some((NotJson, 7))),
    (br#"{,"a":1}"#, Some((NotJson, 1))),
    (br#"{"a":1,,"s":"x"}"#, Some((NotJson, 7))),
    (br#"{"a":1 "s":"x"}"#, Some((NotJson, 7))),
    (br#"{"a" 1}"#, Some((NotJson, 5))),
    (br#"{"a"::1}"#, Some((NotJson, 5))),
    (br#"{a:1}"#, Some((NotJson, 1))),
    (br#"{'a':1}"#, Some((NotJson, 1))),
    (br#"{"a":'1'}"#, Some((NotJson, 5))),
    (br#"{"a":1]"#, Some((NotJson, 6))),
    (br#"{"a":1,"zz":[1}"#, Some((NotJson, 14))),
    (br#"{"a":1,"zz":[1,]}"#, Some((NotJson, 15))),
    (br#"{"a":1,"zz":[,1]}"#, Some((NotJson, 13))),
    (br#"{"a":1,"zz":[1 2]}"#, Some((NotJson, 15))),
    (br#"{"a":1,"zz":{"x"}}"#, Some((NotJson, 16))),
    (br#"{"a":1,"zz":{"x":1,}}"#, Some((NotJson, 19))),
    (br#"{"a":1,"zz":{1:1}}"#, Some((NotJson, 13))),
    (br#"{"a":1,"zz":tru}"#, Some((NotJson, 15))),
    (br#"{"a":1,"zz":TRUE}"#, Some((NotJson, 12))),
    (br#"{"a":1,"zz":NaN}"#, Some((NotJson, 12))),
    (br#"{"a":NaN}"#, Some((NotJson, 5))),
    (br#"{"a":Infinity}"#, Some((NotJson, 5))),
    (br#"{"a":-Infinity}"#, Some((NotJson, 6))),
    (br#"{"a":+1}"#, Some((NotJson, 5))),
    (br#"{"a":01}"#, Some((NotJson, 6))),
    (br#"{"a":-01}"#, Some((NotJson, 7))),
    (br#"{"a":-}"#, Some((NotJson, 6))),
    (br#"{"a":1.}"#, Some((NotJson, 7))),
    (br#"{"a":.5}"#, Some((NotJson, 5))),
    (br#"{"a":1.e3}"#, Some((NotJson, 7))),
    (br#"{"a":1e}"#, Some((NotJson, 7))),
    (br#"{"a":1e+}"#, Some((NotJson, 8))),
    (br#"{"a":1e"#, Some((Truncated, 7))),
    (br#"{"a":0x10}"#, Some((NotJson, 6))),
    (br#"{"a":1_000}"#, Some((NotJson, 6))),
    (br#"{"a":1,"s":"x}"#, Some((Truncated, 14))),
    (br#"{"a":1,"s":"x\"}"#, Some((Truncated, 16))),
    (br#"{"a":1,"s":"\x"}"#, Some((NotJson, 13))),
    (br#"{"a":1,"s":"\u12G4"}"#, Some((NotJson, 16))),
    (br#"{"a":1,"s":"\U0041"}"#, Some((NotJson, 13))),
    (br#"{"a":1,"s":"\u12"#, Some((Truncated, 16))),
    (br#"{"a":1,"s":"\ud83d"}"#, Some((Surrogate, 12))),
    (br#"{"a":1,"s":"\ude00"}"#, Some((Surrogate, 12))),
    (br#"{"a":1,"s":"\ud83d\ud83d"}"#, Some((Surrogate, 12))),
    (br#"{"a":1,"s":"\ud83d\n"}"#, Some((Surrogate, 12))),
    (br#"{"a":1,"s":"ab\ud83dx"}"#, Some((Surrogate, 14))),
    (br#"{"a":1,"s":"\ud83d"#, Some((Truncated, 18))),
    (br#"{"a":1,"zz":"\ud83d"}"#, Some((Surrogate, 13))),
    (br#"{"a":1,"\ud83d":1}"#, Some((Surrogate, 8))),
    (b"{\"a\":1,\"s\":\"a\nb\"}", Some((NotJson, 13))),
    (b"{\"a\":1,\"s\":\"a\0b\"}", Some((NotJson, 13))),
    (b"{\"a\":1,\"zz\":\"\x1f\"}", Some((NotJson, 13))),
    (b"{\"a\":1,\"s\":\"\xff\"}", Some((InvalidUtf8, 12))),
    (b"{\"a\":1,\"zz\":\"\xc3\"}", Some((InvalidUtf8, 13))),
    (b"{\"a\":1,\"s\":\"\xed\xa0\x80\"}", Some((InvalidUtf8, 12))),
    (b"{\"a\":1,\"s\":\"\xc0\x80\"}", Some((InvalidUtf8, 12))),
    (b"{\"\xff\":1,\"a\":1}", Some((InvalidUtf8, 2))),
    (b"{\"a\":1}\xff", Some((InvalidUtf8, 7))),
    (b"{\"a\":1,\xc2\xa0\"s\":\"x\"}", Some((NotJson, 7))),
    (b"{\"a\":1,\x0b\"s\":\"x\"}", Some((NotJson, 7))),
    (b"{\"a\":1 /* no */}", Some((NotJson, 7))),
    (br#"{"a":"1"}"#, Some((Type, 5))),
    (br#"{"a":true}"#, Some((Type, 5))),
    (br#"{"a":{}}"#, Some((Type, 5))),
    (br#"{"a":[1]}"#, Some((Type, 5))),
    (br#"{"a":1,"s":1}"#, Some((Type, 11))),
    (br#"{"a":1,"s":false}"#, Some((Type, 11))),
    (br#"{"a":1.5,"s":1}"#, Some((Range, 5))),
    (br#"{"s":1,"a":1.5}"#, Some((Range, 11))),
];

#[test]
fn payloads() {
    let columns = || vec![Column { nullable: false, ..column("a", DataType::Int64) }, column("s", TEXT_TYPE)];
    // One decoder for all: what it has learned must not matter.
    let mut decoder = JsonDecoder::new(columns(), Options::default()).unwrap();
    for round in 0..2 {
        for (payload, wanted) in PAYLOADS {
            let shown = String::from_utf8_lossy(payload);
            let got = decoder.decode(payload).err();
            assert_eq!(got.as_ref().map(|bad| (bad.reason, bad.offset)), *wanted, "{shown} in round {round}");
            if let Some(bad) = got {
                assert!(bad.detail.ends_with(&format!("at byte {}", bad.offset)), "{bad:?}");
            }
        }
    }
}

/// A type, a value in JSON, and the value as the oracle writes it or the reason.
type Row = (&'static str, &'static str, std::result::Result<&'static str, Reason>);

const VALUES: &[Row] = &[
    ("BOOLEAN", "true", Ok("true")),
    ("BOOLEAN", "false", Ok("false")),
    ("BOOLEAN", "null", Ok("NULL")),
    ("BOOLEAN", "0", Err(Type)),
    ("BOOLEAN", "\"true\"", Err(Type)),
    ("SMALLINT", "-32768", Ok("-32768")),
    ("SMALLINT", "32767.000", Ok("32767")),
    ("SMALLINT", "32768", Err(Range)),
    ("SMALLINT", "\"1\"", Err(Type)),
    ("INT", "2147483647", Ok("2147483647")),
    ("INT", "4294967296", Err(Range)),
    ("INT", "-2147483649", Err(Range)),
    ("INT", "2e9", Ok("2000000000")),
    ("INT", "3e9", Err(Range)),
    ("BIGINT", "0", Ok("0")),
    ("BIGINT", "-0", Ok("0")),
    ("BIGINT", "-0.0e-5", Ok("0")),
    ("BIGINT", "1e3", Ok("1000")),
    ("BIGINT", "1E+3", Ok("1000")),
    ("BIGINT", "12.0", Ok("12")),
    ("BIGINT", "120e-1", Ok("12")),
    ("BIGINT", "1.5", Err(Range)),
    ("BIGINT", "1e-1", Err(Range)),
    ("BIGINT", "0.5e1", Ok("5")),
    ("BIGINT", "1e18", Ok("1000000000000000000")),
    ("BIGINT", "1e19", Err(Range)),
    ("BIGINT", "1e1000000000", Err(Range)),
    ("BIGINT", "1e-1000000000", Err(Range)),
    ("BIGINT", "0e1000000000", Ok("0")),
    ("BIGINT", "99999999999999999999999e-20", Err(Range)),
    ("BIGINT", "100000000000000000000000e-20", Ok("1000")),
    ("BIGINT", "9223372036854775807", Ok("9223372036854775807")),
    ("BIGINT", "9223372036854775808", Err(Range)),
    ("BIGINT", "-9223372036854775808", Ok("-9223372036854775808")),
    ("BIGINT", "-9223372036854775809", Err(Range)),
    ("BIGINT", "12345678", Ok("12345678")),
    ("BIGINT", "123456789", Ok("123456789")),
    ("BIGINT", "1234567890123456", Ok("1234567890123456")),
    ("BIGINT", "12345678901234567", Ok("12345678901234567")),
    ("REAL", "0.1", Ok("3dcccccd")),
    ("REAL", "16777217", Ok("4b800000")),
    ("REAL", "3.4028235e38", Ok("7f7fffff")),
    ("REAL", "3.4028236e38", Err(Range)),
    ("REAL", "1e39", Err(Range)),
    ("REAL", "-0", Ok("80000000")),
    ("REAL", "\"1\"", Err(Type)),
    ("DOUBLE", "0.1", Ok("3fb999999999999a")),
    ("DOUBLE", "-0", Ok("8000000000000000")),
    ("DOUBLE", "-0.0", Ok("8000000000000000")),
    ("DOUBLE", "0", Ok("0000000000000000")),
    ("DOUBLE", "1e400", Err(Range)),
    ("DOUBLE", "-1e400", Err(Range)),
    ("DOUBLE", "1e-400", Ok("0000000000000000")),
    ("DOUBLE", "5e-324", Ok("0000000000000001")),
    ("DOUBLE", "1.7976931348623157e308", Ok("7fefffffffffffff")),
    ("DOUBLE", "9007199254740993", Ok("4340000000000000")),
    ("DOUBLE", "true", Err(Type)),
    ("DECIMAL", "2.2500", Ok("225")),
    ("DECIMAL", "2.25", Ok("225")),
    ("DECIMAL", "\"2.25\"", Ok("225")),
    ("DECIMAL", "\"-2.5\"", Ok("-250")),
    ("DECIMAL", "2", Ok("200")),
    ("DECIMAL", "-0.00", Ok("0")),
    ("DECIMAL", "1e5", Ok("10000000")),
    ("DECIMAL", "1e-2", Ok("1")),
    ("DECIMAL", "1e-3", Err(Range)),
    ("DECIMAL", "2.251", Err(Range)),
    ("DECIMAL", "999999.99", Ok("99999999")),
    ("DECIMAL", "1000000", Err(Range)),
    ("DECIMAL", "123456789.12", Err(Range)),
    ("DECIMAL", "100000001", Err(Range)),
    ("DECIMAL", "1000001e0", Err(Range)),
    ("DECIMAL", "1000000100e-4", Ok("10000001")),
    ("DECIMAL", "1000000001e-4", Err(Range)),
    ("DECIMAL", "100000000100e-6", Err(Range)),
    ("DECIMAL", "100001e0", Ok("10000100")),
    ("DECIMAL", "1e1000000000", Err(Range)),
    ("DECIMAL", "\"\"", Err(Type)),
    ("DECIMAL", "\" 1\"", Err(Type)),
    ("DECIMAL", "\"+1\"", Err(Type)),
    ("DECIMAL", "\"01\"", Err(Type)),
    ("DECIMAL", "\"1\\u0030\"", Ok("1000")),
    ("DECIMAL", "true", Err(Type)),
    ("VARCHAR", "\"\"", Ok("\"\"")),
    ("VARCHAR", "\"exactly 12 b\"", Ok("\"exactly 12 b\"")),
    ("VARCHAR", "\"exactly 13 by\"", Ok("\"exactly 13 by\"")),
    ("VARCHAR", "\"\\u0000\"", Ok("\"\\0\"")),
    ("VARCHAR", "\"\\ud83d\\ude00\"", Ok("\"😀\"")),
    ("VARCHAR", "\"\\b\\f\\n\\r\\t\\\"\\\\\\/\"", Ok("\"\\u{8}\\u{c}\\n\\r\\t\\\"\\\\/\"")),
    ("VARCHAR", "{\"a\":\"x\"}", Err(Type)),
    ("VARBINARY", "\"\"", Ok("[]")),
    ("VARBINARY", "\"Zm8=\"", Ok("[66, 6f]")),
    ("VARBINARY", "\"Zm8\"", Ok("[66, 6f]")),
    ("VARBINARY", "\"\\/\\/\\/\\/\"", Ok("[ff, ff, ff]")),
    ("VARBINARY", "\"Zm9=\"", Err(Base64)),
    ("VARBINARY", "\"Zm9-\"", Err(Base64)),
    ("VARBINARY", "\"Zm 9\"", Err(Base64)),
    ("VARBINARY", "1", Err(Type)),
    ("DATE", "\"1970-01-02\"", Ok("1")),
    ("DATE", "\"2025-02-30\"", Err(Date)),
    ("DATE", "\"2024-02-29\"", Ok("19782")),
    ("DATE", "\"2024-2-29\"", Err(Date)),
    ("DATE", "\"1970-01-01T00:00:00Z\"", Err(Date)),
    ("DATE", "\"\"", Err(Date)),
    ("DATE", "0", Err(Type)),
    ("TIMESTAMP", "0", Ok("0")),
    ("TIMESTAMP", "1700000000123", Ok("1700000000123000")),
    ("TIMESTAMP", "-1", Ok("-1000")),
    ("TIMESTAMP", "1e3", Ok("1000000")),
    ("TIMESTAMP", "12.0", Ok("12000")),
    ("TIMESTAMP", "1.5", Err(Timestamp)),
    ("TIMESTAMP", "9223372036854775", Ok("9223372036854775000")),
    ("TIMESTAMP", "9223372036854776", Err(Timestamp)),
    ("TIMESTAMP", "1e30", Err(Timestamp)),
    ("TIMESTAMP", "\"1970-01-01T00:00:00.001Z\"", Ok("1000")),
    ("TIMESTAMP", "\"1970-01-01T00:00:00.000001Z\"", Ok("1")),
    ("TIMESTAMP", "\"1970-01-01T00:00:00.0000010Z\"", Ok("1")),
    ("TIMESTAMP", "\"1970-01-01T00:00:00.0000001Z\"", Err(Timestamp)),
    ("TIMESTAMP", "\"1970-01-01t01:00:00+01:00\"", Ok("0")),
    ("TIMESTAMP", "\"1970-01-01 00:00:00z\"", Ok("0")),
    ("TIMESTAMP", "\"1970-01-01T00:00:00\\u005a\"", Ok("0")),
    ("TIMESTAMP", "\"\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000\\u0000T00:00:00Z\"", Err(Timestamp)),
    ("TIMESTAMP", "\"1970-01-01T00:00:00\"", Err(Timestamp)),
    ("TIMESTAMP", "\"1970-01-01T00:00:60Z\"", Err(Timestamp)),
    ("TIMESTAMP", "\"2025-02-30T00:00:00Z\"", Err(Timestamp)),
    ("TIMESTAMP", "\"1700000000123\"", Err(Timestamp)),
    ("TIMESTAMP", "true", Err(Type)),
    ("TIMESTAMP", "[]", Err(Type)),
    ("BIGINT[]", "[]", Ok("[]")),
    ("BIGINT[]", "[1, null ,2e0]", Ok("[1,NULL,2,]")),
    ("BIGINT[]", "[1,\"2\"]", Err(Type)),
    ("BIGINT[]", "[1,2.5]", Err(Range)),
    ("BIGINT[]", "1", Err(Type)),
    ("BIGINT[]", "[[1]]", Err(Type)),
    ("STRUCT", "{}", Ok("{n:NULL,s:NULL,}")),
    ("STRUCT", "{\"s\":\"x\",\"n\":5,\"zz\":[]}", Ok("{n:5,s:\"x\",}")),
    ("STRUCT", "{\"n\":\"x\",\"n\":5}", Ok("{n:5,s:NULL,}")),
    ("STRUCT", "{\"n\":4294967296}", Err(Range)),
    ("STRUCT", "[]", Err(Type)),
    ("STRUCT", "\"x\"", Err(Type)),
];

fn data_type(sql: &str) -> DataType {
    match sql {
        "BOOLEAN" => DataType::Boolean,
        "SMALLINT" => DataType::Int16,
        "INT" => DataType::Int32,
        "BIGINT" => DataType::Int64,
        "REAL" => DataType::Float32,
        "DOUBLE" => DataType::Float64,
        "DECIMAL" => DataType::Decimal128(8, 2),
        "VARCHAR" => TEXT_TYPE,
        "VARBINARY" => DataType::Binary,
        "DATE" => DataType::Date32,
        "TIMESTAMP" => MICROS,
        "BIGINT[]" => list(DataType::Int64),
        _ => structure(vec![("n", DataType::Int32), ("s", TEXT_TYPE)]),
    }
}

/// The value in a record of its own, at its end and with another field behind it: the last bytes of a payload are read differently.
#[test]
fn values() {
    assert!(PAYLOADS.len() + VALUES.len() >= 240);
    for (sql, value, wanted) in VALUES {
        let mut decoder = JsonDecoder::new(vec![column("v", data_type(sql))], Options::default()).unwrap();
        for payload in [format!("{{\"v\":{value}}}"), format!("{{\"v\":{value},\"zz\":\"and more than sixteen bytes\"}}")] {
            let got = decoder.decode(payload.as_bytes()).map_err(|bad| bad.reason);
            let batch = decoder.finish().unwrap();
            let got = got.map(|()| oracle::cell(batch.column(0), 0));
            assert_eq!(got, wanted.map(str::to_string), "{sql} {payload}");
        }
    }
}

#[test]
fn coerced_values() {
    for (sql, value, wanted) in [
        ("BIGINT", "\"12\"", Ok("12")),
        ("BIGINT", "\"1e3\"", Ok("1000")),
        ("BIGINT", "\"1\\u0032\"", Ok("12")),
        ("BIGINT", "\"1.5\"", Err(Range)),
        ("BIGINT", "\"\"", Err(Type)),
        ("BIGINT", "\" 12\"", Err(Type)),
        ("BIGINT", "\"twelve\"", Err(Type)),
        ("BIGINT", "true", Err(Type)),
        ("DOUBLE", "\"0.1\"", Ok("3fb999999999999a")),
        ("DOUBLE", "\"NaN\"", Err(Type)),
        ("DOUBLE", "\"1e400\"", Err(Range)),
        ("REAL", "\"0.1\"", Ok("3dcccccd")),
        ("BOOLEAN", "\"true\"", Ok("true")),
        ("BOOLEAN", "\"false\"", Ok("false")),
        ("BOOLEAN", "\"True\"", Err(Type)),
        ("BOOLEAN", "1", Err(Type)),
        ("VARCHAR", "12", Ok("\"12\"")),
        ("VARCHAR", "-1.50e3", Ok("\"-1.50e3\"")),
        ("VARCHAR", "true", Err(Type)),
        ("VARBINARY", "12", Err(Type)),
        ("DATE", "12", Err(Type)),
        ("TIMESTAMP", "\"1000\"", Ok("1000000")),
        ("TIMESTAMP", "\"1970-01-01T00:00:01Z\"", Ok("1000000")),
        ("TIMESTAMP", "\"1.5\"", Err(Timestamp)),
        ("BIGINT[]", "[\"1\",2]", Ok("[1,2,]")),
        ("STRUCT", "{\"n\":\"7\",\"s\":8}", Ok("{n:7,s:\"8\",}")),
    ] {
        let options = Options { coerce: true, ..Options::default() };
        let mut decoder = JsonDecoder::new(vec![column("v", data_type(sql))], options).unwrap();
        let got = decoder.decode(format!("{{\"v\":{value}}}").as_bytes()).map_err(|bad| bad.reason);
        let batch = decoder.finish().unwrap();
        assert_eq!(got.map(|()| oracle::cell(batch.column(0), 0)), wanted.map(str::to_string), "{sql} {value}");
    }
}

#[test]
fn rejected_fields() {
    let path = |name: &str, keys: &[&str], kind| Column { path: keys.iter().map(|key| (*key).to_string()).collect(), ..column(name, kind) };
    let columns = vec![
        column("a", DataType::Int64),
        path("y", &["x", "y"], DataType::Int64),
        path("x", &["x"], structure(vec![("s", TEXT_TYPE)])),
        column("rows", list(structure(vec![("n", DataType::Int32)]))),
        column("t", TEXT_TYPE),
    ];
    let mut decoder = JsonDecoder::new(columns, Options { reject_unknown: true, ..Options::default() }).unwrap();
    for _ in 0..2 {
        for (payload, wanted) in [
            (r#"{"a":1,"x":{"y":1,"s":"x"},"rows":[{"n":1}]}"#, None),
            (r#"{"a":1,"b":2}"#, Some((UnknownField, 7))),
            (r#"{"x":{"y":1,"z":2}}"#, Some((UnknownField, 12))),
            (r#"{"rows":[{"n":1},{"m":1}]}"#, Some((UnknownField, 18))),
            (r#"{"b":{"zz":[1]},"a":"wrong"}"#, Some((UnknownField, 1))),
            (r#"{"b":2,"a":}"#, Some((NotJson, 11))),
            (r#"{"t":{"b":2}}"#, Some((Type, 5))),
            (r#"{"\u0061":1}"#, None),
        ] {
            assert_eq!(decoder.decode(payload.as_bytes()).err().map(|bad| (bad.reason, bad.offset)), wanted, "{payload}");
        }
    }
}

#[test]
fn details_are_exact() {
    let columns = vec![
        Column { nullable: false, ..column("pages", DataType::Int32) },
        column("price", DataType::Decimal128(8, 2)),
        column("meta", structure(vec![("ip", TEXT_TYPE)])),
        column("ts", list(MICROS)),
    ];
    let mut decoder = JsonDecoder::new(columns, Options::default()).unwrap();
    for (payload, wanted) in [
        (r#"{"pages":4294967296}"#, r#"column "pages": 4294967296 does not fit INT at byte 9"#),
        (r#"{"pages":null}"#, r#"column "pages": null, but the column is NOT NULL at byte 9"#),
        ("{}", r#"column "pages": no such field, but the column is NOT NULL at byte 2"#),
        (r#"{"pages":"é"}"#, r#"column "pages": "é" is a string, not INT at byte 9"#),
        (r#"{"pages":1,"price":1e-3}"#, r#"column "price": 1e-3 does not fit DECIMAL(8, 2) at byte 19"#),
        (r#"{"pages":1,"meta":{"ip":[1, 2]}}"#, r#"column "meta"['ip']: [1, 2] is an array, not VARCHAR at byte 24"#),
        (r#"{"pages":1,"ts":["2025-02-30"]}"#, r#"column "ts"[]: "2025-02-30" is no TIMESTAMP(6) at byte 17"#),
        (r#"{"pages":1,}"#, "no JSON: '}' is not allowed here at byte 11"),
        (r#"{"pages":1"#, "the payload ends inside a JSON value at byte 10"),
        (r#"{"pages":1} é"#, "'é' follows the object at byte 12"),
    ] {
        assert_eq!(decoder.decode(payload.as_bytes()).err().map(|bad| bad.detail), Some(wanted.to_string()));
    }
    let long = format!(r#"{{"pages":"{}"}}"#, "é".repeat(1000));
    let bad = decoder.decode(long.as_bytes()).unwrap_err();
    assert!(bad.detail.len() < 150 && bad.detail.contains('…'), "{}", bad.detail);
}

//! The decoder against a table of payloads, against the naive oracle and serde_json on hundreds of thousands of generated ones, and
//! against every truncation and every changed byte of some records.

use super::oracle;
use super::tests_generate::Random;
use super::*;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Fields, TimeUnit};

pub(super) const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub(super) fn column(name: &str, data_type: DataType) -> Column {
    Column { name: name.into(), path: vec![name.into()], data_type, nullable: true, unit: TimeUnitOption::Ms, build: true }
}

fn at_path(name: &str, path: &[&str], data_type: DataType) -> Column {
    Column { path: path.iter().map(|key| (*key).to_string()).collect(), ..column(name, data_type) }
}

pub(super) fn list(of: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", of, true)))
}

pub(super) fn structure(fields: Vec<(&str, DataType)>) -> DataType {
    DataType::Struct(Fields::from(fields.into_iter().map(|(name, kind)| Field::new(name, kind, true)).collect::<Vec<_>>()))
}

/// One column of every type, and every way to share a path.
pub(super) fn everything() -> Vec<Column> {
    let inner =
        structure(vec![("ip", TEXT_TYPE), ("n", DataType::Int32), ("t", MICROS), ("deep", structure(vec![("l", list(DataType::Int64))]))]);
    vec![
        Column { nullable: false, ..column("i64", DataType::Int64) },
        column("i32", DataType::Int32),
        column("i16", DataType::Int16),
        column("b", DataType::Boolean),
        column("f32", DataType::Float32),
        column("f64", DataType::Float64),
        column("dec", DataType::Decimal128(8, 2)),
        column("big", DataType::Decimal128(38, 10)),
        column("s", TEXT_TYPE),
        column("bin", DataType::Binary),
        column("day", DataType::Date32),
        column("ts", MICROS),
        Column { unit: TimeUnitOption::Ns, ..at_path("ts_ns", &["nested", "ts"], MICROS) },
        column("tags", list(TEXT_TYPE)),
        column("grid", list(list(DataType::Float64))),
        column("meta", inner.clone()),
        column("rows", list(inner)),
        at_path("meta_n", &["meta", "n"], DataType::Int64),
        at_path("meta_text", &["meta", "ip"], DataType::Binary),
        at_path("x", &["nested", "x"], DataType::Int32),
        at_path("y", &["nested", "more", "y"], TEXT_TYPE),
        at_path("s_inner", &["s", "inner"], DataType::Boolean),
        Column { build: false, ..column("unbuilt", DataType::Int32) },
        Column { build: false, ..column("unbuilt_list", list(DataType::Date32)) },
    ]
}

const DIGITS_OF_TS: u8 = 3;

struct Rig {
    columns: Vec<Column>,
    digits: Vec<u32>,
    options: Options,
    decoder: JsonDecoder,
    /// Reads the same with other columns built.
    blind: JsonDecoder,
    good: usize,
    bad: usize,
}

impl Rig {
    fn new(options: Options) -> Self {
        let columns = everything();
        let ts = columns.iter().position(|column| column.name == "ts").unwrap();
        let mut digits = vec![6; columns.len()];
        digits[ts] = u32::from(DIGITS_OF_TS);
        let new = |columns: Vec<Column>| JsonDecoder::new(columns, options).unwrap().with_timestamp_digits(ts, DIGITS_OF_TS).unwrap();
        let blind = columns.iter().cloned().map(|column| Column { build: false, ..column }).collect();
        Self { decoder: new(columns.clone()), blind: new(blind), columns, digits, options, good: 0, bad: 0 }
    }

    /// The decoder and the oracle must say the same, and nothing may be left over of a bad record.
    fn check(&mut self, payload: &[u8]) {
        let wanted = oracle::judge(&self.columns, &self.digits, self.options, payload);
        let got = self.decoder.decode(payload);
        let shown = || String::from_utf8_lossy(payload).into_owned();
        assert_eq!(got.is_ok(), wanted.is_some(), "{:?} for {}", got, shown());
        assert_eq!(self.blind.decode(payload), got, "build changes the verdict of {}", shown());
        let batch = self.decoder.finish().unwrap();
        assert_eq!(batch.num_rows(), usize::from(got.is_ok()));
        match (got, wanted) {
            (Ok(()), Some(cells)) => {
                assert_eq!(oracle::row(&batch, 0), cells, "{}", shown());
                self.good += 1;
            }
            (Err(bad), _) => {
                assert!(bad.offset <= payload.len() && !bad.detail.is_empty(), "{bad:?} for {}", shown());
                self.bad += 1;
            }
            _ => unreachable!(),
        }
        self.check_grammar(payload);
    }

    /// serde_json and the oracle must agree about the grammar, or the oracle itself is wrong.
    fn check_grammar(&self, payload: &[u8]) {
        match serde_json::from_slice::<serde_json::Value>(payload) {
            Ok(_) => assert!(oracle::parse(payload, 128).is_some(), "{}", String::from_utf8_lossy(payload)),
            // serde_json takes no number past f64, wherever it stands.
            Err(error) if error.to_string().starts_with("number out of range") => {}
            Err(_) => assert!(oracle::parse(payload, 128).is_none(), "{}", String::from_utf8_lossy(payload)),
        }
    }
}

fn differential(seed: u64, documents: usize, options: Options) {
    let mut random = Random(seed);
    let mut rig = Rig::new(options);
    for _ in 0..documents {
        let mut payload = random.record();
        rig.check(&payload);
        if random.one_in(2) {
            random.mutate(&mut payload);
            rig.check(&payload);
        }
    }
    assert!(rig.good > documents / 20 && rig.bad > documents / 20, "{} good, {} bad: the documents test little", rig.good, rig.bad);
}

#[test]
fn agrees_with_the_oracle() {
    differential(1, 100_000, Options::default());
}

#[test]
fn agrees_with_the_oracle_when_coercing() {
    differential(2, 40_000, Options { coerce: true, ..Options::default() });
}

#[test]
fn agrees_with_the_oracle_when_rejecting() {
    differential(3, 40_000, Options { reject_unknown: true, ..Options::default() });
}

#[test]
fn agrees_with_the_oracle_at_little_depth() {
    differential(4, 20_000, Options { depth_max: 3, ..Options::default() });
}

const RECORDS: [&str; 3] = [
    r#"{"i64":12345678901,"i32":-7,"b":true,"f64":1.25,"dec":12.50,"s":"a longer text than a view holds, \u00e9\n","ts":"2024-02-29T23:59:59.123Z","tags":["a","b\\"]}"#,
    r#" { "i64" : 1e3 , "meta" : { "ip" : "Zg==" , "n" : 5 , "deep" : { "l" : [ 1 , null ] } } , "nested" : { "x" : 1, "ts": 1700000000000000000 } , "zz" : [ { } , [ ] , -0.5e-3 ] } "#,
    r#"{"zz":"unknown 😀","i64":0,"bin":"Zm9v","day":"2024-01-01","grid":[[1.5],[]],"rows":[{"ip":"é","t":"1970-01-01T00:00:00+01:00"}],"s":"é"}"#,
];

#[test]
fn every_truncation_and_every_changed_byte() {
    let mut rig = Rig::new(Options::default());
    for record in RECORDS {
        let payload = record.as_bytes();
        rig.check(payload);
        assert!(rig.good > 0, "{record}");
        for end in 0..payload.len() {
            rig.check(&payload[..end]);
        }
        for spot in 0..payload.len() {
            let mut changed = payload.to_vec();
            for byte in 0..=255 {
                changed[spot] = byte;
                rig.check(&changed);
            }
        }
    }
}

#[test]
fn every_piece_of_a_record_in_a_larger_buffer() {
    // The bytes around a payload belong to other records: they must make no difference.
    let mut rig = Rig::new(Options::default());
    for record in RECORDS {
        let mut buffer = vec![b'"'; 40];
        buffer.extend_from_slice(record.as_bytes());
        buffer.extend_from_slice(&[b'9'; 40]);
        rig.check(&buffer[40..40 + record.len()]);
        rig.check(&buffer[40..39 + record.len()]);
    }
    assert_eq!((rig.good, rig.bad), (4, 2));
}

fn decode_one(payload: &[u8]) -> std::result::Result<(), Bad> {
    JsonDecoder::new(vec![column("a", TEXT_TYPE)], Options::default()).unwrap().decode(payload)
}

#[test]
fn deep_nesting() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [126, 127, 128, 129, 10_000, 1_000_000] {
            for key in ["a", "zz"] {
                let inside = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                let bad = decode_one(format!("{{\"{key}\":{inside}}}").as_bytes()).err().map(|bad| bad.reason);
                let wanted = if depth + 1 > 128 { Some(Reason::Depth) } else { (key == "a").then_some(Reason::Type) };
                assert_eq!(bad, wanted, "{depth} {key}");
                let cut = decode_one(format!("{{\"{key}\":{}", open.repeat(depth)).as_bytes()).map_err(|bad| bad.reason);
                assert_eq!(cut, Err(if depth + 1 > 128 { Reason::Depth } else { Reason::Truncated }));
            }
        }
    }
    // Through declared types.
    let deep = (0..200).fold(DataType::Int64, |inner, _| list(inner));
    let mut decoder = JsonDecoder::new(vec![column("a", deep)], Options::default()).unwrap();
    for depth in [127, 128, 200] {
        let payload = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(decoder.decode(payload.as_bytes()).map_err(|bad| bad.reason), if depth < 128 { Ok(()) } else { Err(Reason::Depth) });
    }
}

#[test]
fn a_long_record() {
    let text = "0123456789abcdef".repeat(128 << 10);
    let payload = format!(r#"{{"zz":"{text}","a":"{text}","n":{}1}}"#, " ".repeat(100_000));
    let mut decoder = JsonDecoder::new(vec![column("a", TEXT_TYPE), column("n", DataType::Int64)], Options::default()).unwrap();
    decoder.decode(br#"{"a":"short","n":2}"#).unwrap();
    decoder.decode(payload.as_bytes()).unwrap();
    decoder.decode(br#"{"a":"not so short any more","n":3}"#).unwrap();
    let batch = decoder.finish().unwrap();
    let texts: Vec<&str> = batch.column(0).as_string_view().iter().flatten().collect();
    assert_eq!(texts, ["short", &text, "not so short any more"]);
    assert!(decode_one(&payload.as_bytes()[..payload.len() - 1]).is_err());
}

#[test]
fn batches_are_whole_and_views_valid() {
    let mut random = Random(9);
    let mut rig = Rig::new(Options::default());
    for rows in [0, 1, 7, 8, 9, 1000, 3000] {
        let mut wanted = Vec::new();
        while wanted.len() < rows {
            let payload = random.record();
            let cells = oracle::judge(&rig.columns, &rig.digits, rig.options, &payload);
            assert_eq!(rig.decoder.decode(&payload).is_ok(), cells.is_some());
            wanted.extend(cells);
        }
        assert_eq!(rig.decoder.rows(), rows);
        let batch = rig.decoder.finish().unwrap();
        assert_eq!((batch.num_rows(), rig.decoder.rows()), (rows, 0));
        assert_eq!(batch.schema(), rig.decoder.schema());
        for column in batch.columns() {
            column.to_data().validate_full().unwrap();
        }
        for (i, cells) in wanted.iter().enumerate() {
            assert_eq!(&oracle::row(&batch, i), cells);
        }
    }
}

#[test]
fn learned_order_never_changes_a_verdict() {
    // Glue seen at one place must not be taken at another.
    let columns = vec![column("a", DataType::Int64), column("b", DataType::Int64), column("o", structure(vec![("a", TEXT_TYPE)]))];
    let payloads = [
        r#"{"a":1,"b":2}"#,
        r#"{"a":1"b":2}"#,
        r#"{"b":2,"a":1}"#,
        r#"{,"b":2}"#,
        r#"{"a":1,}"#,
        r#"{"a":1,"b":2,}"#,
        r#"{"o":{"a":"x"},"a":5}"#,
        r#"{"o":{,"a":"x"}}"#,
        r#"{"a":"x"}"#,
        r#"{"o":{"a":1}}"#,
        r#"{"a": 1,"b":2}"#,
        r#"{"a" :1}"#,
        r#"{"a":  3 , "b" :4}"#,
        r#"{"o":{"a":"x","b":1},"b":1}"#,
        r#"{}"#,
        r#"{ }"#,
        r#"{"a":1}}"#,
        r#"{"zz":1,"a":2}"#,
        r#"{"zz":1"a":2}"#,
        r#"{"zz":,"a":2}"#,
        r#"{"a":1 ,"b":2}"#,
    ];
    let fresh = |payload: &str| JsonDecoder::new(columns.clone(), Options::default()).unwrap().decode(payload.as_bytes());
    let mut decoder = JsonDecoder::new(columns.clone(), Options::default()).unwrap();
    let mut random = Random(5);
    for _ in 0..20_000 {
        let payload = random.pick(&payloads);
        assert_eq!(decoder.decode(payload.as_bytes()), fresh(payload), "{payload}");
    }
    // More keys than the table holds.
    for key in 0..100_000 {
        decoder.decode(format!(r#"{{"k{key}":1,"a":{key}}}"#).as_bytes()).unwrap();
    }
}

#[test]
fn no_columns_built() {
    let mut decoder = JsonDecoder::new(vec![Column { build: false, ..column("a", DataType::Int64) }], Options::default()).unwrap();
    decoder.decode(b"{}").unwrap();
    decoder.decode(b"{\"a\":1}").unwrap();
    let batch = decoder.finish().unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (2, 0));
}

#[test]
fn refused_declarations() {
    let refused = |column: Column| JsonDecoder::new(vec![column], Options::default()).is_err();
    for kind in [
        DataType::UInt8,
        DataType::Utf8,
        DataType::Decimal128(39, 0),
        DataType::Decimal128(5, 6),
        DataType::Decimal128(5, -1),
        DataType::Date64,
    ] {
        assert!(refused(column("a", kind.clone())), "{kind}");
        assert!(refused(column("a", list(kind.clone()))), "{kind}");
    }
    assert!(refused(at_path("a", &[], DataType::Int64)));
    assert!(refused(column("a", DataType::List(Arc::new(Field::new("item", DataType::Int64, false))))));
    assert!(JsonDecoder::new(Vec::new(), Options { depth_max: 0, ..Options::default() }).is_err());
    assert!(JsonDecoder::new(Vec::new(), Options { depth_max: 129, ..Options::default() }).is_err());
    let decoder = || JsonDecoder::new(vec![column("a", MICROS)], Options::default()).unwrap();
    assert!(decoder().with_timestamp_digits(1, 3).is_err() && decoder().with_timestamp_digits(0, 7).is_err());
    let digits = Field::new("t", MICROS, true).with_metadata([(TIMESTAMP_DIGITS_KEY.to_string(), "0".to_string())].into());
    let mut decoder = JsonDecoder::new(vec![column("a", DataType::Struct(Fields::from(vec![digits])))], Options::default()).unwrap();
    assert!(decoder.decode(br#"{"a":{"t":1000}}"#).is_ok() && decoder.decode(br#"{"a":{"t":1001}}"#).is_err());
}

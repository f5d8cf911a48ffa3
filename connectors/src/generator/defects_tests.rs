//! What the catalogue writes, read by serde_json and by eye.

use super::*;

const JSON: &[u8] = br#"{"id":7,"ts":1767225600000,"code":"a\"}b","status":302,"ref":"x,y","meta":{"ip":"1.2.3.4"}}"#;
const COLUMNS: Columns = Columns { text: "code", nullable_text: "ref", bigint: "id", smallint: "status", time: "ts" };

fn write(name: &str) -> Option<Vec<u8>> {
    let defect = DEFECTS.iter().chain([&HUGE]).find(|defect| defect.name == name).unwrap();
    let mut out = Vec::new();
    (defect.write)(&Victim { json: JSON, now_ms: 1_767_225_600_123, columns: COLUMNS }, &mut Rng::new(1), &mut out).then_some(out)
}

fn read(name: &str) -> serde_json::Value {
    serde_json::from_slice(&write(name).unwrap()).unwrap()
}

/// What RFC 8259 alone decides agrees with serde_json; the rest is a matter of columns and clocks.
#[test]
fn the_good_ones_parse_and_no_name_comes_twice() {
    let mut names = std::collections::BTreeSet::new();
    for defect in DEFECTS {
        assert!(names.insert(defect.name), "{}", defect.name);
        let payload = write(defect.name);
        assert!(payload.iter().flatten().all(|byte| *byte != b'\n'), "{}", defect.name);
        if defect.fate != Fate::Dead {
            let value: serde_json::Value = serde_json::from_slice(&payload.unwrap()).unwrap();
            assert_eq!(value["id"], 7, "{}", defect.name);
            assert!(value["code"].is_string() && value["status"].as_f64() == Some(302.0), "{}", defect.name);
        }
    }
}

#[test]
fn no_bad_one_is_a_good_record() {
    for defect in DEFECTS.iter().filter(|defect| defect.fate == Fate::Dead) {
        let payload = write(defect.name).unwrap_or_default();
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&payload) else { continue };
        let fits = value["id"].is_i64()
            && value["status"].as_i64().is_some_and(|status| i16::try_from(status).is_ok())
            && value["code"].is_string()
            && value["ref"].is_string()
            && value["ts"].as_i64().is_some_and(|ts| ts < 1 << 53);
        assert!(!fits, "{}: {}", defect.name, String::from_utf8_lossy(&payload));
    }
}

#[test]
fn each_change_lands_where_it_should() {
    assert_eq!(read("escaped NUL")["ref"], "a\0b");
    assert_eq!(read("escaped surrogate pair")["ref"], "🚀");
    assert_eq!(read("escaped field name")["code"], "a\"}b");
    assert_eq!(read("duplicate field")["status"], 302);
    assert_eq!(read("time as text")["ts"], "2026-01-01T02:00:00.123+02:00");
    assert_eq!(read("an hour ahead")["ts"], 1_767_229_200_123_i64);
    assert_eq!(write("null payload"), None);
    assert_eq!(write("empty payload"), Some(Vec::new()));
    assert!(write("over 2 MB").unwrap().len() > 2_000_000);
    let deep = write("nesting of 10,000").unwrap();
    assert_eq!(deep.iter().filter(|byte| **byte == b'[').count(), 9_999);
}

#[test]
fn a_column_that_was_missing_is_added() {
    let mut out = Vec::new();
    put(&Victim { json: br#"{"id":7}"#, now_ms: 0, columns: COLUMNS }, "ref", b"1", &mut out);
    assert_eq!(out, br#"{"id":7,"ref":1}"#);
}

#[test]
fn leap_days_have_their_names() {
    assert_eq!(rfc_3339(951_782_400_000), b"\"2000-02-29T02:00:00.000+02:00\"");
    assert_eq!(rfc_3339(-86_400_000 - 7_200_000), b"\"1969-12-31T00:00:00.000+02:00\"");
}

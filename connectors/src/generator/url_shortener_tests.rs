//! The workload's promises: same bytes, the shares of each oddity, good records that parse.

use super::*;
use crate::generator::arrivals::DISORDER_MS_MAX;
use std::collections::{BTreeMap, BTreeSet};

fn settings(seed: u64, rate_per_s: f64) -> Settings {
    Settings { seed, rate_per_s, ..Settings::default() }
}

fn checksum(settings: &Settings, records: usize) -> u64 {
    summed(&mut UrlShortener::new(settings), records)
}

fn summed(workload: &mut dyn Workload, records: usize) -> u64 {
    let mut record = Generated::default();
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for _ in 0..records {
        workload.next_into(&mut record);
        let numbers =
            [record.timestamp_ms as u64, u64::from(record.partition), u64::from(record.key.is_some()), u64::from(record.value.is_some())];
        let bytes = numbers.into_iter().flat_map(u64::to_le_bytes);
        for byte in bytes.chain(record.key.iter().flatten().copied()).chain(record.value.iter().flatten().copied()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// A change of these numbers changes what everybody's seeds mean: say so in CHANGELOG.md.
#[test]
fn same_seed_same_bytes_for_ever() {
    assert_eq!(checksum(&settings(1, 1_000.0), 50_000), 11_183_370_326_925_451_983);
    assert_eq!(checksum(&Settings { partitions: 1, defects: false, ..settings(7, 50.0) }, 50_000), 12_734_164_452_889_891_490);
    assert_ne!(checksum(&settings(1, 1_000.0), 100), checksum(&settings(2, 1_000.0), 100));
}

#[test]
fn buffers_make_no_difference() {
    let (mut fresh, mut reused) = (UrlShortener::new(&settings(3, 100.0)), UrlShortener::new(&settings(3, 100.0)));
    let mut record = Generated::default();
    for _ in 0..20_000 {
        reused.next_into(&mut record);
        assert_eq!(fresh.next(), record);
    }
}

#[test]
fn good_records_have_their_columns() {
    let mut workload = UrlShortener::new(&Settings { defects: false, ..settings(5, 100.0) });
    let (mut arrived, mut statuses) = (0, BTreeMap::<i64, u32>::new());
    for _ in 0..100_000 {
        let record = workload.next();
        let value: serde_json::Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        assert!(value["event_id"].as_i64().unwrap() > 1 << 53);
        assert!(value["ts"].as_i64().unwrap() <= record.timestamp_ms);
        assert_eq!(value["short_code"].as_str().unwrap().as_bytes(), record.key.as_deref().unwrap());
        assert!(value["visitor_id"].as_str().unwrap().len() == 11 && value["pop"].as_str().unwrap().len() == 3);
        assert!(value["redirect_us"].as_i64().unwrap() >= 180);
        *statuses.entry(value["status"].as_i64().unwrap()).or_default() += 1;
        assert!(record.timestamp_ms >= arrived && record.partition < 4);
        arrived = record.timestamp_ms;
    }
    assert_eq!(statuses.keys().copied().collect::<Vec<_>>(), [302, 404, 410]);
    assert!(statuses[&302] > 90_000 && statuses[&404] > 200 && statuses[&410] > 200, "{statuses:?}");
}

#[test]
fn each_oddity_has_its_share() {
    const RECORDS: u32 = 400_000;
    let mut workload = UrlShortener::new(&settings(6, 100.0));
    let (mut late, mut unreadable, mut null, mut robots, mut repeats) = (0_u32, 0_u32, 0_u32, 0_u32, 0_u32);
    let (mut links, mut visitors, mut seen) = (BTreeMap::<String, u32>::new(), BTreeSet::new(), BTreeMap::<Vec<u8>, i64>::new());
    for _ in 0..RECORDS {
        let record = workload.next();
        let Some(payload) = record.value else {
            null += 1;
            continue;
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&payload) else {
            unreadable += 1;
            continue;
        };
        let Some(behind) = value["ts"].as_i64().map(|ts| record.timestamp_ms - ts) else { continue };
        late += u32::from((arrivals_late()..86_400_000).contains(&behind));
        assert!(behind <= DISORDER_MS_MAX + REPEAT_MS_MAX || behind >= arrivals_late(), "{behind}");
        robots += u32::from(value["meta"]["ua"].as_str().is_some_and(|ua| !ua.starts_with("Mozilla/5.0 (") || ua.contains("compatible")));
        *links.entry(value["short_code"].to_string()).or_default() += 1;
        visitors.insert(value["visitor_id"].to_string());
        if let Some(before) = seen.insert(payload, record.timestamp_ms).filter(|_| value["event_id"].is_i64()) {
            repeats += 1;
            assert!(record.timestamp_ms - before <= REPEAT_MS_MAX);
        }
    }
    let share = |count: u32| f64::from(count) / f64::from(RECORDS);
    assert!((0.0025..0.0035).contains(&share(late)), "late {late}");
    assert!((0.0003..0.0008).contains(&share(unreadable)) && null > 0, "unreadable {unreadable}, null {null}");
    assert!((0.0045..0.0055).contains(&share(repeats)), "repeats {repeats}");
    assert!((0.05..0.12).contains(&share(robots)), "robots {robots}");
    assert!(*links.values().max().unwrap() > RECORDS / 20 && links.len() > 20_000, "{} links", links.len());
    assert!(visitors.len() > 30_000, "{} visitors", visitors.len());
}

fn arrivals_late() -> i64 {
    crate::generator::arrivals::LATE_MS_MIN
}

/// A session is worth its name: most people click more than once within 30 minutes, and some come back later.
#[test]
fn people_come_in_sittings() {
    let mut workload = UrlShortener::new(&Settings { defects: false, ..settings(8, 20.0) });
    let mut last = BTreeMap::<String, i64>::new();
    let (mut near, mut far) = (0_u32, 0_u32);
    for _ in 0..200_000 {
        let value: serde_json::Value = serde_json::from_slice(workload.next().value.as_deref().unwrap()).unwrap();
        let ts = value["ts"].as_i64().unwrap();
        match last.insert(value["visitor_id"].to_string(), ts) {
            Some(before) if ts - before <= 1_800_000 => near += 1,
            Some(_) => far += 1,
            None => {}
        }
    }
    assert!(near > 100_000 && far > 5_000, "{near} within half an hour, {far} later");
}

#[test]
fn business_stands_beside_the_same_clicks() {
    let settings = settings(9, 50.0);
    let (mut clicks, mut all) = (UrlShortener::new(&settings), (CASE.make)(&settings));
    let (mut links, mut gone, mut orders, mut twice) = (BTreeSet::new(), 0_u32, BTreeSet::new(), 0_u32);
    let mut arrived = 0;
    for _ in 0..150_000 {
        let record = all.next();
        assert!(record.timestamp_ms >= arrived && record.partition < 4, "{} {}", record.topic, record.timestamp_ms);
        arrived = record.timestamp_ms;
        if record.topic == TOPIC {
            assert_eq!(record, clicks.next());
            continue;
        }
        let Some(value) = record.value else {
            gone += u32::from(record.topic == business::LINKS_TOPIC);
            continue;
        };
        let value: serde_json::Value = serde_json::from_slice(&value).unwrap();
        let time = if record.topic == business::LINKS_TOPIC { &value["changed_at"] } else { &value["ts"] };
        let behind = record.timestamp_ms - time.as_i64().unwrap();
        assert!((0..=DISORDER_MS_MAX + 200).contains(&behind), "{behind}");
        if record.topic == business::LINKS_TOPIC {
            assert_eq!(value["short_code"].as_str().unwrap().as_bytes(), record.key.as_deref().unwrap());
            links.insert(value["short_code"].to_string());
        } else {
            twice += u32::from(!orders.insert(value["order_id"].as_i64().unwrap()));
        }
    }
    assert!(links.len() > 10_000 && gone > 3, "{} links, {gone} taken away", links.len());
    assert!(orders.len() > 3_000 && twice > 30, "{} orders, {twice} sent twice", orders.len());
}

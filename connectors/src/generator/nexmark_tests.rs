//! The workload's promises: same bytes, the proportions, ids that were given before they are named, and hot spots.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn settings(seed: u64) -> Settings {
    Settings { seed, rate_per_s: 1_000.0, ..Settings::default() }
}

/// A change of these numbers changes what everybody's seeds mean: say so in CHANGELOG.md.
#[test]
fn same_seed_same_bytes_for_ever() {
    let checksum = |seed: u64| {
        let mut workload = Nexmark::new(&settings(seed));
        (0..20_000).fold(0xcbf2_9ce4_8422_2325_u64, |hash, _| {
            let record = workload.next();
            let bytes = record.value.unwrap_or_default().into_iter().chain(record.key.unwrap_or_default());
            bytes.fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
        })
    };
    assert_eq!(checksum(1), 4_867_633_088_513_996_683);
    assert_ne!(checksum(1), checksum(2));
}

#[test]
fn ids_are_given_before_they_are_named() {
    let mut workload = Nexmark::new(&settings(3));
    let (mut people, mut auctions) = (BTreeSet::new(), BTreeSet::new());
    let (mut bids, mut on_auction, mut arrived) = (0, BTreeMap::<i64, u32>::new(), 0);
    for _ in 0..100_000 {
        let record = workload.next();
        let value: serde_json::Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        let number = |name: &str| value[name].as_i64().unwrap();
        assert!((0..=4_000).contains(&(record.timestamp_ms - number("dateTime"))) && record.timestamp_ms >= arrived);
        arrived = record.timestamp_ms;
        match record.topic {
            PERSON => assert!(people.insert(number("id")) && value["state"].as_str().unwrap().len() == 2),
            AUCTION => {
                assert!(auctions.insert(number("id")) && people.contains(&number("seller")));
                assert!(number("expires") > number("dateTime") && number("reserve") > number("initialBid"));
            }
            _ => {
                bids += 1;
                assert!(auctions.contains(&number("auction")) && people.contains(&number("bidder")), "{value}");
                assert!((100..=100_000_000).contains(&number("price")));
                *on_auction.entry(number("auction")).or_default() += 1;
            }
        }
    }
    assert_eq!((people.len(), auctions.len(), bids), (2_000, 6_000, 92_000));
    let hot: u32 = on_auction.iter().filter(|(auction, _)| (**auction - FIRST_ID) % HOT_EVERY == 0).map(|(_, bids)| bids).sum();
    assert!((46_000..49_000).contains(&hot), "{hot}");
}

#[test]
fn buffers_make_no_difference() {
    let (mut fresh, mut reused) = (Nexmark::new(&settings(5)), Nexmark::new(&settings(5)));
    let mut record = Generated::default();
    for _ in 0..1_000 {
        reused.next_into(&mut record);
        assert_eq!(fresh.next(), record);
    }
}

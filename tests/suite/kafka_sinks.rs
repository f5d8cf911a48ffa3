//! Sinks on a real Apache Kafka: transactions can be tested on nothing less. Runs are killed while they send; what a read_committed reader
//! finds is each result once, for keyless sinks the final ones, for keyed ones what the table holds.
//!
//! Always: topics are read back by a pipeline of our own, which reads committed records only, and which keeps tombstones as dead letters.
//! Without a broker a test says `skipped: why`; where CI is set it fails.

use std::time::Duration;

use tidemill_connectors::kafka::{Admin, KafkaProducer, WAIT_MS};

use crate::kafka::{Topic, topic};
use crate::support::{Bench, until};

const BASE_MS: i64 = 1_767_225_600_000;
const PATIENCE: Duration = Duration::from_secs(60);
const SINKS: [&str; 3] = ["alerts", "finals", "raw"];

/// Sends `count` clicks to each partition, a second apart but for every seventh, which comes up to a minute late.
fn send(topic: &mut Topic, count: i64) {
    let mut producer = KafkaProducer::new(&topic.brokers, &[]).expect("good properties");
    for partition in 0..2 {
        let from = topic.sent[partition as usize];
        for n in from..from + count {
            let behind = if n % 7 == 3 { n * 13 % 60 } else { 0 };
            let ts = BASE_MS + (n - behind) * 1000;
            let value = format!("{{\"k\":{},\"ts\":{ts}}}", n % 5);
            producer.send(&topic.name, partition, None, Some(value.as_bytes()), ts).expect("sent");
        }
        topic.sent[partition as usize] = from + count;
    }
    producer.flush().expect("delivered");
}

/// `alerts` loses what grows to 20 or more: a tombstone. `finals` is `minutes` once nothing repairs it, `raw` each click.
fn pipeline(name: &str, topic: &Topic) -> String {
    let out = |sink: &str| format!("{}-{sink}", topic.name);
    format!(
        "SET pipeline = '{name}';
         CREATE TABLE clicks (k BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
         WITH (connector = 'kafka', topic = '{}', format = 'json');
         CREATE MATERIALIZED VIEW minutes WITH (lateness = '30 seconds') AS
         SELECT window_start, window_end, k, count(*) AS n FROM tumble(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, k;
         CREATE TABLE alerts (k BIGINT, \"windowStart\" TIMESTAMP(3), n BIGINT, PRIMARY KEY (k, \"windowStart\"))
         WITH (connector = 'kafka', topic = '{}', format = 'json');
         INSERT INTO alerts SELECT k, window_start, n FROM minutes WHERE n < 24;
         CREATE TABLE finals (window_start TIMESTAMP(3), k BIGINT, n BIGINT) WITH (connector = 'kafka', topic = '{}', format = 'json');
         INSERT INTO finals SELECT window_start, k, n FROM minutes;
         CREATE TABLE raw (p INT, o BIGINT, k BIGINT) WITH (connector = 'kafka', topic = '{}', format = 'json');
         INSERT INTO raw SELECT _partition, _offset, k FROM clicks WHERE k < 3;
         INSERT INTO raw SELECT _partition, _offset, k FROM clicks WHERE k >= 3;",
        topic.name,
        out("alerts"),
        out("finals"),
        out("raw"),
    )
}

/// Reads the topics back.
fn reader(name: &str, topic: &Topic) -> String {
    let source = |sink: &str, columns: &str| {
        format!("CREATE TABLE {sink}_topic ({columns}) WITH (connector = 'kafka', topic = '{}-{sink}', format = 'json');", topic.name)
    };
    format!(
        "SET pipeline = '{name}';
         {} {} {}
         CREATE MATERIALIZED VIEW alerts AS
         SELECT encode(_key, 'hex') AS key, _partition AS p, _offset AS o, k, \"windowStart\" AS window_start, n FROM alerts_topic;
         CREATE MATERIALIZED VIEW finals AS SELECT window_start, k, n, _key FROM finals_topic;
         CREATE MATERIALIZED VIEW raw AS SELECT p, o, k FROM raw_topic;",
        source("alerts", "k BIGINT NOT NULL, \"windowStart\" TIMESTAMP(3), n BIGINT"),
        source("finals", "window_start TIMESTAMP(3), k BIGINT, n BIGINT"),
        source("raw", "p INT, o BIGINT, k BIGINT"),
    )
}

/// A topic of clicks and the topics of the sinks.
fn topics(name: &str) -> Option<Topic> {
    let topic = topic(name)?;
    let admin = Admin::new(&topic.brokers, &[], WAIT_MS).expect("good properties");
    for sink in SINKS {
        assert!(admin.create_topic(&format!("{}-{sink}", topic.name), 3, &[], &mut |_| {}).expect("created"));
    }
    Some(topic)
}

/// A pipeline's name is part of a topic's: nobody else's.
fn own(name: &str, topic: &Topic) -> String {
    let id: String = topic.name.chars().rev().take(12).filter(char::is_ascii_digit).collect();
    format!("{name}_{id}")
}

/// Compares what is in the topics with the tables.
fn check(bench: &Bench, name: &str, topic: &Topic) {
    let reader_name = format!("{name}_back");
    bench.write("back.sql", reader(&reader_name, topic));
    bench.tidemill(&["run", "back.sql", "--bounded", "--quiet", "--brokers", &topic.brokers]).exits(0);
    let rows = |query: &str| bench.rows(&query.replace("$p", name).replace("$b", &reader_name));

    // Each click once.
    let raw = rows("SELECT p, o, k FROM $b.raw");
    let clicks: i64 = topic.sent.iter().sum();
    assert_eq!(raw.len() as i64, clicks, "each click once");
    assert_eq!(raw.iter().collect::<std::collections::BTreeSet<_>>().len() as i64, clicks, "and none twice");

    // Each final result once, without a key.
    let at = "WITH w AS (SELECT max(watermark) AS at FROM tidemill.epochs WHERE pipeline = '$p')";
    let expected = rows(&format!("{at} SELECT window_start, k, n FROM $p.minutes, w WHERE window_end + INTERVAL '30 seconds' <= at"));
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(rows("SELECT window_start, k, n FROM $b.finals"), expected);
    assert_eq!(rows("SELECT count(_key) AS keys FROM $b.finals"), ["{\"keys\":0}"]);

    // The last word on each key is the table's.
    let last = rows(
        "SELECT k, window_start, n FROM (
             SELECT *, row_number() OVER (PARTITION BY key, p ORDER BY o DESC) AS place FROM (
                 SELECT key, p, o, k, window_start, n, false AS gone FROM $b.alerts UNION ALL
                 SELECT encode(key, 'hex'), \"partition\", \"offset\", NULL, NULL, NULL, true FROM $b.dead_letters WHERE source = 'alerts_topic'))
         WHERE place = 1 AND NOT gone",
    );
    assert_eq!(last, rows("SELECT k, window_start, n FROM $p.minutes WHERE n < 24"));
    assert!(rows("SELECT 1 AS one FROM $b.dead_letters WHERE payload IS NULL LIMIT 1").len() == 1, "some results are gone: tombstones");
    let key = rows("SELECT CAST(decode(key, 'hex') AS VARCHAR) AS key FROM $b.alerts WHERE k = 1 ORDER BY window_start LIMIT 1");
    assert_eq!(key, ["{\"key\":\"{\\\"k\\\":1,\\\"windowStart\\\":\\\"2025-12-31T23:59:00Z\\\"}\"}"]);
}

fn counted(bench: &Bench, name: &str) -> i64 {
    let query = format!("SELECT coalesce(sum(rows_in), 0) AS n FROM tidemill.accounting WHERE pipeline = '{name}' AND output = 'finals'");
    let said = bench.tidemill(&["sql", "--format", "csv", "-c", &query]);
    said.out.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
}

#[test]
fn a_sink_gets_each_result_once_though_the_run_is_killed() {
    let Some(mut topic) = topics("sinks") else { return };
    let name = own("sinks", &topic);
    let bench = Bench::new();
    bench.write("k.sql", pipeline(&name, &topic));
    for (turn, workers) in (1..=4).zip(["1", "2", "4", "2"]) {
        send(&mut topic, 200);
        let common = ["run", "k.sql", "--brokers", &topic.brokers, "--set", "idle_after=1 hour", "--epoch-ms", "20"];
        let mut run = bench.start(&[&common[..], &["--workers", workers, "--set", "rows_per_tick_max=10"]].concat());
        let before = counted(&bench, &name);
        until("half of the records are in", PATIENCE, || {
            assert!(!run.ended(), "turn {turn}: {}", run.heard());
            (counted(&bench, &name) >= before + 150).then_some(())
        });
        assert!(run.kill());
    }
    bench.tidemill(&["run", "k.sql", "--brokers", &topic.brokers, "--bounded", "--quiet"]).exits(0);
    bench.balances(&name, topic.sent.iter().sum::<i64>() as usize);
    check(&bench, &name, &topic);
    // More records, a clean stop, and nothing of it doubles what is there.
    send(&mut topic, 100);
    bench.tidemill(&["run", "k.sql", "--brokers", &topic.brokers, "--bounded", "--quiet", "--workers", "4"]).exits(0);
    check(&bench, &name, &topic);
}

#[test]
fn what_does_not_fit_what_the_topic_has_is_refused() {
    let Some(mut topic) = topics("sinks-refused") else { return };
    let name = own("refused", &topic);
    let bench = Bench::new();
    bench.write("k.sql", pipeline(&name, &topic));
    let run = ["run", "k.sql", "--brokers", &topic.brokers.clone(), "--bounded", "--quiet"];
    send(&mut topic, 100);
    bench.tidemill(&run).exits(0);
    let copy = |from: &str, to: &str| {
        let _ = std::fs::remove_dir_all(bench.path(to));
        let done = std::process::Command::new("cp").args(["-r"]).arg(bench.path(from)).arg(bench.path(to)).status().expect("cp runs");
        assert!(done.success());
    };
    copy("data", "older");
    send(&mut topic, 100);
    bench.tidemill(&run).exits(0);
    copy("data", "newer");

    // An older data folder was put back.
    copy("older", "data");
    let said = bench.tidemill(&run).exits(2);
    assert!(said.err.contains("an older data folder was put back"), "{}", said.err);
    // The data folder was deleted.
    std::fs::remove_dir_all(bench.path("data")).expect("removed");
    let said = bench.tidemill(&run).exits(2);
    assert!(said.err.contains("another life of pipeline") && said.err.contains("--reset"), "{}", said.err);
    // The newest goes on.
    copy("newer", "data");
    bench.tidemill(&run).exits(0);
    check(&bench, &name, &topic);

    // Who begins anew says so, and everything is sent again.
    bench.tidemill(&[&run[..], &["--reset", "--yes"]].concat()).exits(0);
    bench.write("back.sql", reader(&format!("{name}_twice"), &topic));
    bench.tidemill(&["run", "back.sql", "--bounded", "--quiet", "--brokers", &topic.brokers]).exits(0);
    let twice = format!("SELECT count(*) AS n, count(DISTINCT p * 1000000 + o) AS clicks FROM {name}_twice.raw");
    assert_eq!(bench.rows(&twice), ["{\"n\":800,\"clicks\":400}"]);

    // A topic that is not there is named at once, with what to do.
    bench.write("k.sql", pipeline(&format!("{name}_x"), &topic).replace("-finals'", "-nowhere'"));
    let mut waiting = bench.start(&run[..5]);
    let told = |line: &str| line.contains("-nowhere does not exist") && line.contains("--create --topic");
    until("the topic is named", Duration::from_secs(20), || waiting.heard().lines().any(told).then_some(()));
    assert!(!waiting.ended() && waiting.kill());
}

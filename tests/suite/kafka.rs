//! A real Apache Kafka: what was produced is in the tables, while the run goes on and after it was stopped or killed.
//!
//! Always: each test has topics of its own. Without a broker a test says `skipped: why`; where CI is set it fails.

use std::time::Duration;

use tidemill_connectors::kafka::{Admin, KafkaProducer, WAIT_MS};
use tidemill_tests::broker;

use crate::support::{Bench, Running, until};

const BASE_MS: i64 = 1_767_225_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Topic {
    pub brokers: String,
    pub name: String,
    pub sent: Vec<i64>,
}

/// A topic of two partitions; `None` (and a word) without a broker.
pub fn topic(name: &str) -> Option<Topic> {
    let brokers = match broker::broker() {
        Ok(brokers) => brokers,
        Err(why) if broker::required() => panic!("no broker: {why}"),
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let name = format!("suite-{name}-{}-{now}", std::process::id());
    let admin = Admin::new(&brokers, &[], WAIT_MS).expect("good properties");
    assert!(admin.create_topic(&name, 2, &[], &mut |_| {}).expect("created"));
    Some(Topic { brokers, name, sent: vec![0, 0] })
}

impl Topic {
    /// Sends `count` clicks a second apart to each partition; every tenth is bad. Keys count from 0 to 4.
    fn send(&mut self, count: i64) {
        let mut producer = KafkaProducer::new(&self.brokers, &[]).expect("good properties");
        for partition in 0..2 {
            let from = self.sent[partition as usize];
            for n in from..from + count {
                let ts = BASE_MS + n * 1000;
                let value = if n % 10 == 9 { "{".to_owned() } else { format!("{{\"k\":{},\"ts\":{ts}}}", n % 5) };
                producer.send(&self.name, partition, Some(b"key"), Some(value.as_bytes()), ts).expect("sent");
            }
            self.sent[partition as usize] = from + count;
        }
        producer.flush().expect("delivered");
    }

    fn pipeline(&self) -> String {
        format!(
            "SET pipeline = 'k';
             CREATE TABLE clicks (k BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
             WITH (connector = 'kafka', topic = '{}', format = 'json');
             CREATE MATERIALIZED VIEW minutes AS
             SELECT window_start, k, count(*) AS n FROM tumble(clicks, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, k;
             CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, max(_offset) AS last FROM clicks GROUP BY k;",
            self.name
        )
    }

    fn records(&self) -> usize {
        self.sent.iter().sum::<i64>() as usize
    }

    /// Rows of `minutes` and of `totals` as the log has them.
    fn expected(&self) -> (Vec<String>, Vec<String>) {
        let (mut minutes, mut totals) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
        for sent in &self.sent {
            for n in (0..*sent).filter(|n| n % 10 != 9) {
                *minutes.entry((n / 60, n % 5)).or_insert(0) += 1;
                let total: &mut (i64, i64) = totals.entry(n % 5).or_default();
                *total = (total.0 + 1, total.1.max(n));
            }
        }
        let minute = |((minute, k), n): (&(i64, i64), &i64)| {
            format!("{{\"window_start\":\"2026-01-01T{:02}:{:02}:00Z\",\"k\":{k},\"n\":{n}}}", minute / 60, minute % 60)
        };
        let mut minutes: Vec<String> = minutes.iter().map(minute).collect();
        minutes.sort();
        (minutes, totals.iter().map(|(k, (n, last))| format!("{{\"k\":{k},\"n\":{n},\"last\":{last}}}")).collect())
    }

    /// No partition is idle within a test: rows that come behind what an idle one let close would rightly be late.
    fn run<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let patient: &[&str] = if more.contains(&"--bounded") { &[] } else { &["--set", "idle_after=1 hour"] };
        [&["run", "k.sql", "--brokers", self.brokers.as_str()], patient, more].concat()
    }

    fn check(&self, bench: &Bench) {
        let (minutes, totals) = self.expected();
        assert_eq!(bench.rows("SELECT * FROM k.minutes"), minutes);
        assert_eq!(bench.rows("SELECT * FROM k.totals"), totals);
        let dead = self.sent.iter().map(|sent| sent / 10).sum::<i64>();
        assert_eq!(bench.rows("SELECT count(*) AS n FROM k.dead_letters"), [format!("{{\"n\":{dead}}}")]);
        bench.balances("k", self.records());
        self.verify(bench);
    }

    /// The batch over the same records says the same.
    fn verify(&self, bench: &Bench) {
        let said = bench.tidemill(&["verify", "k.sql", "--brokers", self.brokers.as_str()]).exits(0);
        assert!(said.out.contains("the tables are what the batch says"), "{}", said.out);
    }
}

fn bench(topic: &Topic) -> Bench {
    let bench = Bench::new();
    bench.write("k.sql", topic.pipeline());
    bench
}

/// How many good records the running totals hold, read while the run goes on.
fn counted(bench: &Bench) -> Option<i64> {
    let said = bench.tidemill(&["sql", "--format", "csv", "-c", "SELECT coalesce(sum(n), 0) AS n FROM k.totals"]);
    said.out.lines().nth(1).and_then(|line| line.parse().ok())
}

fn wait_for(bench: &Bench, run: &mut Running, good: i64) {
    until("the records are in the table", PATIENCE, || {
        assert!(!run.ended(), "the run ended: {}", run.heard());
        (counted(bench) == Some(good)).then_some(())
    });
}

#[test]
fn bounded_runs_hold_every_record_once() {
    let Some(mut topic) = topic("bounded") else { return };
    let bench = bench(&topic);
    for (workers, count) in [("1", 500), ("2", 300), ("4", 1), ("2", 200)] {
        topic.send(count);
        bench.tidemill(&topic.run(&["--bounded", "--quiet", "--workers", workers])).exits(0);
        topic.check(&bench);
    }
}

#[test]
fn a_run_is_read_while_it_goes_on_and_ends_clean_at_sigterm() {
    let Some(mut topic) = topic("live") else { return };
    let bench = bench(&topic);
    topic.send(100);
    let mut run = bench.start(&topic.run(&["--epoch-ms", "100"]));
    wait_for(&bench, &mut run, 180);
    topic.send(100);
    wait_for(&bench, &mut run, 360);
    topic.verify(&bench);

    // A second one is refused; the first goes on.
    let second = bench.tidemill(&topic.run(&["--bounded"]));
    assert_eq!(second.code, Some(2), "{}", second.err);
    assert!(second.err.contains("running already"), "{}", second.err);
    let reset = bench.tidemill(&topic.run(&["--reset", "--yes"]));
    assert_eq!(reset.code, Some(2), "{}", reset.err);
    topic.send(100);
    wait_for(&bench, &mut run, 540);

    assert_eq!(run.terminate(), Some(0), "{}", run.heard());
    bench.balances("k", topic.records());
    assert_eq!(counted(&bench), Some(540));
    // What had not been there while it ran is taken by the next one.
    topic.send(50);
    bench.tidemill(&topic.run(&["--bounded", "--quiet"])).exits(0);
    topic.check(&bench);
}

#[test]
fn killed_runs_lose_and_double_nothing() {
    let Some(mut topic) = topic("killed") else { return };
    let bench = bench(&topic);
    for (turn, workers) in (1..=4).zip(["1", "2", "3", "2"]) {
        topic.send(200);
        let mut run = bench.start(&topic.run(&["--epoch-ms", "30", "--workers", workers, "--set", "rows_per_tick_max=20"]));
        let before = counted(&bench).unwrap_or(0);
        // Half of the new records, so that it dies amid the others.
        until("half of the records are in", PATIENCE, || {
            assert!(!run.ended(), "turn {turn}: {}", run.heard());
            counted(&bench).filter(|now| *now >= before + 100)
        });
        assert!(run.kill());
    }
    bench.tidemill(&topic.run(&["--bounded", "--quiet"])).exits(0);
    topic.check(&bench);
}

#[test]
fn an_unknown_topic_and_a_silent_broker_are_named_at_once() {
    let Some(topic) = topic("unknown") else { return };
    let bench = bench(&topic);
    bench.write("k.sql", topic.pipeline().replace(&topic.name, "no-such-topic"));
    for (brokers, named) in [(topic.brokers.as_str(), "no-such-topic"), ("127.0.0.1:1", "127.0.0.1:1")] {
        let mut run = bench.start(&["run", "k.sql", "--bounded", "--brokers", brokers]);
        // What it reads is announced before anything is tried.
        let told = |line: &str| line.contains(named) && !line.trim_start().starts_with("reads");
        until(&format!("{named} is named"), Duration::from_secs(20), || run.heard().lines().any(told).then_some(()));
        assert!(!run.ended(), "it goes on trying for a minute: {}", run.heard());
        assert!(run.kill());
    }
    let said = bench.tidemill(&["run", "k.sql", "--bounded"]);
    assert_eq!(said.code, Some(2), "no broker is named at all: {}", said.err);
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_ends_the_run() {
    let Some(mut topic) = topic("deleted") else { return };
    let bench = bench(&topic);
    topic.send(50);
    let mut run = bench.start(&topic.run(&["--epoch-ms", "100"]));
    wait_for(&bench, &mut run, 90);
    topic.verify(&bench);
    let deleted =
        std::process::Command::new(crate::support::checkout("deploy/kafka/kafka")).args(["topic", "delete", &topic.name]).output();
    assert!(deleted.expect("runs").status.success());
    until("the topic is named", PATIENCE, || run.heard().contains("is not there any more").then_some(()));
    assert_eq!(run.code(), Some(1), "{}", run.heard());
    assert!(run.heard().contains("was deleted while it was read"), "{}", run.heard());
    // Another topic of that name holds other records: there is nothing to compare with.
    let admin = Admin::new(&topic.brokers, &[], WAIT_MS).expect("good properties");
    admin.create_topic(&topic.name, 2, &[], &mut |_| {}).expect("created");
    topic.send(50);
    let said = bench.tidemill(&["verify", "k.sql", "--brokers", topic.brokers.as_str()]).exits(2);
    assert!(said.err.contains("made anew"), "{}", said.err);
}

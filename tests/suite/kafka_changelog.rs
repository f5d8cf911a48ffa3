//! A changelog in a real Apache Kafka: keys, deletions, and a stream joined with it as of its time, over stops and kills.
//!
//! Always: what is expected is computed here from what was sent. Without a broker a test says `skipped: why`; where CI is set it fails.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_connectors::kafka::{Admin, KafkaProducer, WAIT_MS};
use tidemill_tests::broker;

use crate::support::{Bench, accounts, until};

const BASE_MS: i64 = 1_767_225_600_000;
const PEOPLE: i64 = 7;

/// What was sent: changes of people (`None`: deleted), and orders, each with its time in seconds.
#[derive(Default)]
struct Sent {
    changes: Vec<(i64, i64, Option<String>)>,
    orders: Vec<(i64, i64, i64)>,
    unreadable: i64,
}

struct Topics {
    brokers: String,
    people: String,
    orders: String,
    sent: Sent,
}

fn topics(name: &str) -> Option<Topics> {
    let brokers = match broker::broker() {
        Ok(brokers) => brokers,
        Err(why) if broker::required() => panic!("no broker: {why}"),
        Err(why) => {
            println!("skipped: {why}");
            return None;
        }
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let [people, orders] = ["people", "orders"].map(|topic| format!("suite-{name}-{topic}-{}-{now}", std::process::id()));
    let admin = Admin::new(&brokers, &[], WAIT_MS).expect("good properties");
    for topic in [&people, &orders] {
        assert!(admin.create_topic(topic, 2, &[], &mut |_| {}).expect("created"));
    }
    Some(Topics { brokers, people, orders, sent: Sent::default() })
}

impl Topics {
    /// Sends what happens in the seconds `from..to`: each second a change and two orders.
    fn send(&mut self, from: i64, to: i64, json: bool) {
        self.send_changes(from, to, json, |_| true);
        self.send_orders(from, to);
    }

    /// Changes of the people that are `wanted`.
    fn send_changes(&mut self, from: i64, to: i64, json: bool, wanted: impl Fn(i64) -> bool) {
        let mut producer = KafkaProducer::new(&self.brokers, &[]).expect("good properties");
        for second in from..to {
            let at = BASE_MS + second * 1000;
            let id = (second * 5) % PEOPLE;
            if !wanted(id) {
                continue;
            }
            let key = if json { format!("{{\"id\":{id}}}") } else { id.to_string() };
            let partition = i32::try_from(id % 2).expect("small");
            let city = (second % 4 != 3).then(|| format!("c{}", second % 3));
            let value = city.as_ref().map(|city| format!("{{\"id\":{id},\"city\":\"{city}\"}}"));
            producer.send(&self.people, partition, Some(key.as_bytes()), value.as_deref().map(str::as_bytes), at).expect("sent");
            self.sent.changes.push((second, id, city));
            if second % 10 == 0 {
                producer.send(&self.people, partition, Some(b"nobody"), None, at).expect("sent");
                self.sent.unreadable += 1;
            }
        }
        producer.flush().expect("delivered");
    }

    fn send_orders(&mut self, from: i64, to: i64) {
        let mut producer = KafkaProducer::new(&self.brokers, &[]).expect("good properties");
        for second in from..to {
            let at = BASE_MS + second * 1000;
            for n in 0..2 {
                let (order, person) = (second * 2 + n, (second * 3 + n) % (PEOPLE + 1));
                let value = format!("{{\"id\":{order},\"person\":{person},\"ts\":{at}}}");
                producer.send(&self.orders, i32::try_from(n).expect("small"), None, Some(value.as_bytes()), at).expect("sent");
                self.sent.orders.push((second, order, person));
            }
        }
        producer.flush().expect("delivered");
    }

    /// The last city of each person, as the table `everybody` holds it.
    fn everybody(&self) -> Vec<String> {
        self.last().iter().map(|(id, city)| format!("{{\"id\":{id},\"city\":\"{city}\"}}")).collect()
    }

    fn last(&self) -> BTreeMap<i64, &str> {
        let mut last: BTreeMap<i64, &str> = BTreeMap::new();
        for (_, id, city) in &self.sent.changes {
            match city {
                Some(city) => last.insert(*id, city),
                None => last.remove(id),
            };
        }
        last
    }

    fn pipeline(&self, more: &str) -> String {
        format!(
            "SET pipeline = 'j';
             CREATE TABLE people (id BIGINT, city VARCHAR, PRIMARY KEY (id))
             WITH (connector = 'kafka', topic = '{}', format = 'json'{more});
             CREATE TABLE orders (id BIGINT NOT NULL, person BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '2 seconds')
             WITH (connector = 'kafka', topic = '{}', format = 'json', idle_after = '1 hour');
             CREATE MATERIALIZED VIEW everybody AS SELECT * FROM people;
             CREATE MATERIALIZED VIEW cities AS SELECT city, count(*) AS n FROM people GROUP BY city;
             CREATE MATERIALIZED VIEW placed AS
             SELECT o.id, p.city FROM orders AS o ASOF JOIN people AS p MATCH_CONDITION (o.ts >= p._timestamp) ON o.person = p.id;",
            self.people, self.orders
        )
    }

    /// The last city of each person, and each order with the city as of its time.
    fn check(&self, bench: &Bench) {
        let last = self.last();
        let mut cities: BTreeMap<&str, i64> = BTreeMap::new();
        last.values().for_each(|city| *cities.entry(city).or_default() += 1);
        let cities: Vec<String> = cities.iter().map(|(city, n)| format!("{{\"city\":\"{city}\",\"n\":{n}}}")).collect();
        assert_eq!(bench.rows("SELECT * FROM j.everybody"), self.everybody());
        assert_eq!(bench.rows("SELECT * FROM j.cities"), cities);
        let placed = self.sent.orders.iter().map(|(at, order, person)| {
            let mut valid = self.sent.changes.iter().filter(|(changed, id, _)| changed <= at && id == person);
            let city = valid.next_back().and_then(|(_, _, city)| city.as_ref()).map_or("null".to_owned(), |city| format!("\"{city}\""));
            format!("{{\"id\":{order},\"city\":{city}}}")
        });
        let mut placed: Vec<String> = placed.collect();
        placed.sort();
        assert_eq!(bench.rows("SELECT * FROM j.placed"), placed);
        let dead = self.sent.unreadable;
        assert_eq!(
            bench.rows("SELECT source, reason, count(*) AS n FROM j.dead_letters GROUP BY source, reason"),
            [format!("{{\"source\":\"people\",\"reason\":\"key\",\"n\":{dead}}}")]
        );
        for row in bench.rows(&accounts("j")) {
            assert!(row.contains(r#""unplaced":0"#) && row.contains(r#""late":0"#), "{row}");
        }
    }

    fn run<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["run", "j.sql", "--brokers", self.brokers.as_str()], more].concat()
    }
}

fn placed(bench: &Bench) -> i64 {
    let said = bench.tidemill(&["sql", "--format", "csv", "-c", "SELECT count(*) AS n FROM j.placed"]);
    said.out.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
}

#[test]
fn bounded_runs_and_kills_leave_what_the_changes_say() {
    let Some(mut topics) = topics("changes") else { return };
    let bench = Bench::new();
    bench.write("j.sql", topics.pipeline(", idle_after = '1 hour'"));
    for (part, workers) in (0..3).zip(["1", "2", "4"]) {
        topics.send(part * 40, (part + 1) * 40, false);
        bench.tidemill(&topics.run(&["--bounded", "--quiet", "--workers", workers])).exits(0);
        topics.check(&bench);
    }
    topics.send(120, 400, false);
    let mut run =
        bench.start(&topics.run(&["--epoch-ms", "30", "--workers", "2", "--set", "rows_per_tick_max=10", "--set", "idle_after=1 hour"]));
    until("it has read on", Duration::from_secs(60), || (placed(&bench) > 300 || run.ended()).then_some(()));
    assert!(run.kill(), "{}", run.heard());
    bench.tidemill(&topics.run(&["--bounded", "--quiet", "--workers", "3"])).exits(0);
    topics.check(&bench);
}

#[test]
fn a_changelog_that_is_silent_holds_up_no_join() {
    let Some(mut topics) = topics("silent") else { return };
    let bench = Bench::new();
    bench.write("j.sql", topics.pipeline(", key_format = 'json'"));
    topics.send(0, 30, true);
    let mut run = bench.start(&topics.run(&["--epoch-ms", "100"]));
    // The orders are never idle, and get on while the changes are at their end.
    let mut second = 30;
    until("orders behind the last change are there", Duration::from_secs(60), || {
        assert!(!run.ended(), "{}", run.heard());
        topics.send_orders(second, second + 1);
        second += 1;
        (placed(&bench) > 70).then_some(())
    });
    // Changes that come now count from their time on. They are of one partition: an idle one holds up nobody, so what is read of it
    // after the other has gone on is late. For the same reason the orders of their time are sent once they are read.
    topics.send_changes(second + 10, second + 20, true, |id| id % 2 == 1);
    until("the changes are read", Duration::from_secs(60), || {
        assert!(!run.ended(), "{}", run.heard());
        (bench.rows("SELECT * FROM j.everybody") == topics.everybody()).then_some(())
    });
    topics.send_orders(second + 10, second + 20);
    assert_eq!(run.terminate(), Some(0), "{}", run.heard());
    bench.tidemill(&topics.run(&["--bounded", "--quiet"])).exits(0);
    topics.check(&bench);
}

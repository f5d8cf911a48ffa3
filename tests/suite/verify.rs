//! `tidemill verify` as a user types it: equal tables, tables that are not what the records say, and logs that nothing can be said of.
//!
//! A run over one input and a comparison over another stand for a run that went wrong: what the tables hold is then what no batch gives.

use std::io::Write;
use std::time::Duration;

use crate::support::{Bench, Said, until};

const PIPELINE: &str = "CREATE TABLE e (k BIGINT NOT NULL, ts TIMESTAMP NOT NULL, x DOUBLE, WATERMARK FOR ts AS ts - INTERVAL '1 second')
WITH (connector = 'file', path = 'e.ndjson', format = 'json');
CREATE MATERIALIZED VIEW minutes AS
SELECT window_start, window_end, k, count(*) AS n, sum(x) AS x, approx_distinct(x) AS d
FROM tumble(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW patient WITH (lateness = '2 minutes') AS
SELECT window_start, count(*) AS n FROM tumble(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end;
CREATE MATERIALIZED VIEW busiest AS
SELECT window_end, k, n FROM (SELECT window_end, k, n, row_number() OVER (PARTITION BY window_end ORDER BY n DESC) AS r FROM minutes) WHERE r = 1;
CREATE MATERIALIZED VIEW visits AS
SELECT window_start, window_end, k, count(*) AS n FROM session(e, ts, INTERVAL '20 seconds', k) GROUP BY window_start, window_end, k;
CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, 100 / min(k) AS share FROM e GROUP BY k;
CREATE MATERIALIZED VIEW raw AS SELECT k, 100 / k AS part, _offset AS at FROM e;
";

/// Record `n` comes 3 seconds after the one before; every seventh is two minutes late, every eleventh is broken, every thirteenth has a key of
/// zero, by which two outputs divide.
fn record(n: i64) -> String {
    if n % 11 == 10 {
        return "{\n".to_owned();
    }
    let seconds = if n % 7 == 6 { n * 3 - 120 } else { n * 3 };
    let key = if n % 13 == 12 { 0 } else { 1 + n % 3 };
    format!("{{\"k\":{key},\"ts\":{},\"x\":0.{n}}}\n", 1_767_225_600_000 + seconds * 1000)
}

fn records(from: i64, to: i64) -> String {
    (from..to).map(record).collect()
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("p.sql", PIPELINE.replace("100 / min(k)", "100 / (1 + min(k))"));
    bench.write("e.ndjson", records(0, 300));
    bench
}

fn run(bench: &Bench) {
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
}

fn verify(bench: &Bench) -> Said {
    bench.tidemill(&["verify", "p.sql", "--workers", "2"])
}

/// The line of the table about one comparison.
#[track_caller]
fn line<'a>(said: &'a Said, of: &str, what: &str) -> Vec<&'a str> {
    let cells = |line: &'a str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let found = said.out.lines().map(cells).find(|cells| cells.len() == 7 && cells[0] == of && cells[1] == what);
    found.unwrap_or_else(|| panic!("no line for {of}, {what} in\n{}\n{}", said.out, said.err))
}

#[test]
fn tables_that_are_what_the_batch_says_exit_with_0() {
    let bench = bench();
    run(&bench);
    let said = verify(&bench).exits(0);
    for output in ["minutes", "patient", "busiest", "visits", "totals", "raw"] {
        assert_eq!(line(&said, output, "rows")[4..6], ["0", "0"], "{}", said.out);
        assert_eq!(line(&said, output, "records")[2..4], ["300", "300"], "{}", said.out);
    }
    assert_ne!(line(&said, "minutes", "late events")[2], "0");
    assert_ne!(line(&said, "visits", "late events")[2], "0");
    assert_eq!(line(&said, "e", "dead letters")[2], "27");
    assert_eq!(line(&said, "raw", "failing records")[3], "21");
    assert!(said.out.contains("d within 3.3 %") && said.out.contains("the tables are what the batch says"), "{}", said.out);
    let quiet = bench.tidemill(&["verify", "p.sql", "--quiet"]).exits(0);
    assert!(quiet.err.is_empty() && !quiet.out.is_empty(), "{}", quiet.err);
}

#[test]
fn rows_late_events_and_dead_letters_that_are_wrong_are_shown() {
    let bench = bench();
    run(&bench);
    let tampered = |n: i64, other: &str| {
        let all: String = (0..300).map(|each| if each == n { other.to_owned() } else { record(each) }).collect();
        bench.write("e.ndjson", all);
        verify(&bench).exits(1)
    };
    // Another value: the results over it differ, and both sides of them are shown.
    let said = tampered(0, &record(0).replace("0.0", "77.5"));
    assert_eq!(line(&said, "minutes", "rows")[4..], ["1", "1", "differs"], "{}", said.out);
    assert!(said.out.contains("79.03") && said.out.contains("_only_in"), "{}", said.out);
    assert_eq!(line(&said, "patient", "rows")[6], "equal");
    // A record that was late is not, in the log as it is now.
    let late = record(13);
    let said = tampered(13, &late.replace(&late[late.find("17").expect("a time")..][..13], &(1_767_225_600_000_i64 + 39_000).to_string()));
    assert_eq!(line(&said, "minutes", "late events")[5..], ["1", "differs"], "{}", said.out);
    assert_eq!(line(&said, "minutes", "rows")[6], "differs", "{}", said.out);
    // A record that was a dead letter is good, and the other way round.
    let said = tampered(10, &record(9));
    assert_eq!(line(&said, "e", "dead letters")[4..], ["0", "1", "differs"], "{}", said.out);
    let said = tampered(9, "{\n");
    assert_eq!(line(&said, "e", "dead letters")[4..], ["1", "0", "differs"], "{}", said.out);
    assert!(said.out.contains("the account of e: it counts 27 dead letters"), "{}", said.out);
    // A record on which an expression failed does not fail.
    let said = tampered(12, &record(12).replace("\"k\":0", "\"k\":5"));
    assert_eq!(line(&said, "raw", "failing records")[5..], ["1", "differs"], "{}", said.out);
    bench.write("e.ndjson", records(0, 300));
    verify(&bench).exits(0);
}

#[test]
fn what_can_not_be_compared_is_refused_and_never_differs() {
    let bench = bench();
    let refused = |word: &str| {
        let said = verify(&bench).exits(2);
        assert!(said.err.contains(word) && said.out.is_empty(), "{word}:\n{}{}", said.out, said.err);
    };
    refused("`tidemill run` makes them");
    run(&bench);
    bench.write("e.ndjson", records(0, 299));
    refused("no longer holds");
    bench.write("e.ndjson", records(0, 300));
    bench.write("p.sql", PIPELINE.replace("1 minute", "2 minutes"));
    refused("has changed since its state was made");
    std::fs::remove_file(bench.path("e.ndjson")).expect("removed");
    bench.write("p.sql", PIPELINE.replace("100 / min(k)", "100 / (1 + min(k))"));
    refused("e.ndjson");
}

#[test]
fn while_a_run_goes_on_what_is_closed_is_compared() {
    let bench = bench();
    let live = ["run", "p.sql", "--epoch-ms", "50", "--workers", "2", "--set", "idle_after=1 hour"];
    let counted = |records: i64| {
        let query = "SELECT sum(rows_in) AS n FROM tidemill.accounting WHERE output = 'totals'";
        move |bench: &Bench| bench.rows(query) == [format!("{{\"n\":{records}}}")]
    };
    let mut run_on = bench.start(&live);
    until("all records are read", Duration::from_secs(60), || counted(300)(&bench).then_some(()));
    let said = verify(&bench).exits(0);
    assert!(said.out.contains("still open are not compared"), "{}", said.out);
    let closed = |said: &Said| line(said, "minutes", "rows")[2].parse::<u64>().expect("a number");
    let before = closed(&said);
    assert!(before > 10);
    assert_eq!(run_on.terminate(), Some(0), "{}", run_on.heard());
    // The end of a bounded run publishes what is open; a run that goes on from there keeps it in the tables.
    run(&bench);
    let ended = closed(&verify(&bench).exits(0));
    assert!(ended > before, "{ended} and {before}");
    let mut file = std::fs::File::options().append(true).open(bench.path("e.ndjson")).expect("opens");
    file.write_all(records(300, 340).as_bytes()).expect("written");
    let mut run_on = bench.start(&live);
    until("the new records are read", Duration::from_secs(60), || counted(340)(&bench).then_some(()));
    let said = verify(&bench).exits(0);
    assert!(closed(&said) > before, "{}", said.out);
    assert_eq!(run_on.terminate(), Some(0), "{}", run_on.heard());
    run(&bench);
    verify(&bench).exits(0);
}

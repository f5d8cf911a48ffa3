//! Sinks, with the real command: what INSERT INTO sends out is what the tables say is final, once, however often the run is killed.
//!
//! Always: results are compared with the pipeline's own tables, which other tests prove; a keyless sink gets what no row in time can
//! revise any more, and nothing else.

use std::time::{Duration, Instant};

use crate::crash::{newest_epoch, records, write};
use crate::support::{Bench, accounts, until};

const RECORDS: usize = 30_000;

/// A source and, for each sink, a table of the same results.
const PIPELINE: &str = "
    SET pipeline = 'c';
    CREATE TABLE e (id BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, k BIGINT NOT NULL, x INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
    WITH (connector = 'file', path = 'events', format = 'json', idle_after = '1 hour');
    CREATE MATERIALIZED VIEW minutes WITH (lateness = '10 minutes') AS
    SELECT window_start, window_end, k, count(*) AS n, sum(x) AS x FROM tumble(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, k;
    CREATE MATERIALIZED VIEW visits AS
    SELECT window_start, window_end, k, count(*) AS n FROM session(e, ts, INTERVAL '1 minute', k) GROUP BY window_start, window_end, k;
    CREATE MATERIALIZED VIEW best AS
    SELECT window_start, window_end, place, k, n FROM (
        SELECT window_start, window_end, k, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, k) AS place
        FROM minutes) AS ranked WHERE place <= 2;
    CREATE MATERIALIZED VIEW rows AS SELECT id, k, ts FROM e WHERE k < 4;

    CREATE TABLE busy (window_start TIMESTAMP(3) NOT NULL, k BIGINT NOT NULL, n DECIMAL(20, 0), x BIGINT, note VARCHAR)
    WITH (connector = 'file', path = 'out/busy', format = 'json');
    INSERT INTO busy (k, n, window_start, x) SELECT k, n, window_start, x FROM minutes WHERE n > 2;
    CREATE TABLE seen (window_start TIMESTAMP, window_end TIMESTAMP, k BIGINT, n BIGINT) WITH (connector = 'file', path = 'out/seen');
    INSERT INTO seen SELECT window_start, window_end, k, count(*) FROM session(e, ts, INTERVAL '1 minute', k) GROUP BY window_start, window_end, k;
    CREATE TABLE top (place BIGINT, k BIGINT, n BIGINT) WITH (connector = 'file', path = 'out/top', format = 'json');
    INSERT INTO top SELECT place, k, n FROM best;
    CREATE TABLE both (id BIGINT, k BIGINT, ts TIMESTAMP(3)) WITH (connector = 'file', path = 'out/both', format = 'json');
    INSERT INTO both SELECT id, k, ts FROM e WHERE k < 2;
    INSERT INTO both SELECT id, k, ts FROM rows WHERE k >= 2;
    CREATE TABLE none (k BIGINT, n BIGINT) WITH (connector = 'blackhole');
    INSERT INTO none SELECT k, count(*) FROM e GROUP BY k;
";

const OUTPUTS: &[&str] = &["minutes", "visits", "best", "rows"];

/// Each sink's folder, and the query for what must be in it.
const FINAL: &[(&str, &str)] = &[
    ("busy", "SELECT window_start, k, n, x, NULL AS note FROM c.minutes, w WHERE n > 2 AND window_end + INTERVAL '10 minutes' <= at"),
    ("seen", "SELECT window_start, window_end, k, n FROM c.visits, w WHERE window_end + INTERVAL '1 minute' <= at"),
    ("top", "SELECT place, k, n FROM c.best, w WHERE window_end + INTERVAL '10 minutes' <= at"),
    ("both", "SELECT id, k, ts FROM c.rows"),
];

/// The lines of all files of a sink, sorted.
fn lines(bench: &Bench, folder: &str) -> Vec<String> {
    let Ok(files) = std::fs::read_dir(bench.path(&format!("out/{folder}"))) else { return Vec::new() };
    let files = files.map(|file| file.expect("listed").path());
    let texts = files
        .filter(|path| path.extension().is_some_and(|ending| ending == "ndjson"))
        .map(|path| std::fs::read_to_string(path).expect("text"));
    let mut lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.sort();
    lines
}

fn check(bench: &Bench, records: usize) {
    bench.balances("c", records);
    for (sink, query) in FINAL {
        let query = format!("WITH w AS (SELECT max(watermark) AS at FROM tidemill.epochs WHERE pipeline = 'c') {query}");
        let (found, expected) = (lines(bench, sink), bench.rows(&query));
        assert!(expected.len() > 100, "{sink}: {} rows test too little", expected.len());
        let missing = expected.iter().find(|row| found.binary_search(row).is_err());
        let extra = found.iter().find(|row| expected.binary_search(row).is_err());
        assert!(found == expected, "{sink}: {} lines, not {}; missing {missing:?}, extra {extra:?}", found.len(), expected.len());
    }
}

#[test]
fn what_goes_out_is_what_is_final_however_it_is_run() {
    let records = records();
    for (ends, workers) in [(&[RECORDS][..], "2"), (&[RECORDS / 3, RECORDS / 2, RECORDS], "1"), (&[500, RECORDS], "4")] {
        let bench = Bench::new();
        bench.write("p.sql", PIPELINE);
        for end in ends {
            write(&bench, "events", &records[..*end]);
            bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", workers]).exits(0);
            bench.balances("c", *end);
        }
        check(&bench, RECORDS);
        // Nothing more comes of running it again.
        let before: Vec<_> = FINAL.iter().map(|(sink, _)| lines(&bench, sink)).collect();
        bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(0);
        assert!(before == FINAL.iter().map(|(sink, _)| lines(&bench, sink)).collect::<Vec<_>>());
    }
}

#[test]
fn runs_that_are_killed_deliver_once() {
    let records = records();
    let bench = Bench::new();
    write(&bench, "events", &records);
    bench.write("p.sql", PIPELINE);
    for (turn, workers) in (0..).zip(["1", "2", "4", "2", "1"]) {
        let args = ["run", "p.sql", "--workers", workers, "--epoch-ms", "10", "--set", "rows_per_tick_max=20"];
        let mut run = bench.start(&args);
        let (epoch, begun) = (newest_epoch(&bench) + 3 * turn, Instant::now());
        until("epochs are committed", Duration::from_secs(60), || {
            let read_all = begun.elapsed() > Duration::from_secs(3) && turn > 2;
            (newest_epoch(&bench) >= epoch || read_all || run.ended()).then_some(())
        });
        assert!(run.kill(), "turn {turn}: the run had ended before it was killed: {}", run.heard());
    }
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
    check(&bench, RECORDS);
    let all = bench.everything("c", OUTPUTS, &accounts("c"));
    assert!(
        all.iter().any(|(name, rows)| name == "accounting" && rows.iter().any(|row| row.contains("\"both_2\""))),
        "each INSERT has its account"
    );
}

#[test]
fn an_insert_added_later_begins_at_the_start_and_a_changed_one_is_refused() {
    let records = records();
    let bench = Bench::new();
    let (without, _) = PIPELINE.split_once("CREATE TABLE top").expect("a part");
    bench.write("p.sql", without);
    write(&bench, "events", &records[..RECORDS / 2]);
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
    bench.write("p.sql", PIPELINE);
    write(&bench, "events", &records);
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "1"]).exits(0);
    check(&bench, RECORDS);
    bench.write("p.sql", PIPELINE.replace("WHERE n > 2", "WHERE n > 3"));
    let said = bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(2);
    assert!(said.err.contains("output busy has changed"), "{}", said.err);
    // The same pipeline with its state gone would write everything again.
    bench.write("p.sql", PIPELINE);
    std::fs::remove_dir_all(bench.path("data")).expect("removed");
    let said = bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(2);
    assert!(said.err.contains("another life of pipeline c"), "{}", said.err);
}

#[test]
fn parquet_files_are_read_back_by_a_source() {
    let bench = Bench::new();
    write(&bench, "events", &records()[..3000]);
    let (head, _) = PIPELINE.split_once("CREATE TABLE busy").expect("a part");
    let sink =
        "CREATE TABLE busy (window_start TIMESTAMP(3), k BIGINT, n BIGINT) WITH (connector = 'file', path = 'out', format = 'parquet');
                INSERT INTO busy SELECT window_start, k, n FROM minutes;";
    bench.write("p.sql", format!("{head}{sink}"));
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(0);
    bench.write(
        "back.sql",
        "CREATE TABLE busy (window_start TIMESTAMP(3), k BIGINT, n BIGINT) WITH (connector = 'file', path = 'out', format = 'parquet');
         CREATE MATERIALIZED VIEW again AS SELECT window_start, k, n FROM busy;",
    );
    bench.tidemill(&["run", "back.sql", "--bounded", "--quiet"]).exits(0);
    let at = "WITH w AS (SELECT max(watermark) AS at FROM tidemill.epochs WHERE pipeline = 'c')";
    let expected = bench.rows(&format!("{at} SELECT window_start, k, n FROM c.minutes, w WHERE window_end + INTERVAL '10 minutes' <= at"));
    assert!(expected.len() > 100);
    assert_eq!(bench.rows("SELECT * FROM back.again"), expected);
}

#[test]
fn what_a_sink_cannot_take_is_said() {
    let bench = Bench::new();
    write(&bench, "events", &records()[..3000]);
    let (head, _) = PIPELINE.split_once("CREATE TABLE busy").expect("a part");
    let file = "WITH (connector = 'file', path = 'out/f', format = 'json')";
    for (sink, said) in [
        (format!("CREATE TABLE f (k BIGINT, n BIGINT) {file}; INSERT INTO f SELECT k, count(*) FROM e GROUP BY k;"), "add a PRIMARY KEY"),
        (format!("CREATE TABLE f (k BIGINT, n BIGINT) {file}; INSERT INTO f SELECT k, sum(n) FROM minutes GROUP BY k;"), "add a PRIMARY KEY"),
        (
            format!(
                "CREATE MATERIALIZED VIEW early WITH (emit = 'changes') AS SELECT window_end, count(*) AS n FROM tumble(e, ts, INTERVAL '1 hour')
                 GROUP BY window_end; CREATE TABLE f (n BIGINT) {file}; INSERT INTO f SELECT n FROM early;"
            ),
            "emit = 'changes'",
        ),
        (format!("CREATE TABLE f (k BIGINT, PRIMARY KEY (k)) {file}; INSERT INTO f SELECT k FROM e;"), "no PRIMARY KEY"),
        (format!("CREATE TABLE f (k INT) {file}; INSERT INTO f SELECT k FROM e;"), "CAST(k AS INT)"),
    ] {
        bench.write("p.sql", format!("{head}{sink}"));
        for command in [&["check", "p.sql"][..], &["run", "p.sql", "--bounded", "--quiet"]] {
            let answer = bench.tidemill(command).exits(2);
            assert!(answer.err.starts_with("p.sql:") && answer.err.contains(said), "{said}: {}", answer.err);
        }
    }
    // A source row that breaks the sink's promise is a dead letter of it alone; a result that does stops the run.
    let strict = "CREATE TABLE f (id BIGINT, x BIGINT NOT NULL) WITH (connector = 'file', path = 'out/f'); INSERT INTO f SELECT id, nullif(x, 7) FROM e;";
    bench.write("p.sql", format!("{head}{strict}"));
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(0);
    bench.balances("c", 3000);
    let dead = bench.rows("SELECT detail, count(*) AS n FROM c.dead_letters WHERE output = 'f' GROUP BY detail");
    assert!(dead.len() == 1 && dead[0].contains("a NULL for the sink's column x, which is NOT NULL"), "{dead:?}");
    let derived = "CREATE TABLE f (n BIGINT, x BIGINT NOT NULL) WITH (connector = 'file', path = 'out/g'); INSERT INTO f SELECT n, nullif(x, x) FROM minutes;";
    bench.write("p.sql", format!("SET pipeline = 'd';{}{derived}", head.replace("SET pipeline = 'c';", "")));
    let said = bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(1);
    assert!(said.err.contains("which is NOT NULL") && said.err.contains("p.sql:"), "{}", said.err);
}

//! Promise 1 and exactly-once, with the real command: killed at many moments, restarted with other workers, run in parts. What is left is
//! what an undisturbed run leaves.
//!
//! Always: a kill that came too late to disturb anything does not count as one.

use std::time::{Duration, Instant};

use crate::support::{Bench, accounts, steady_accounts, until};

const RECORDS: usize = 30_000;

/// Records over two hours: in order but for a little, some late, some bad. A plain generator of its own, so that nothing here depends on
/// a case.
pub fn records() -> Vec<String> {
    let mut seed = 42_u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let mut clock = 1_767_225_600_000_i64;
    let mut all = Vec::with_capacity(RECORDS);
    for id in 0..RECORDS {
        clock += i64::try_from(below(1200)).expect("small");
        let behind = if below(50) == 0 { below(3_600_000) } else { below(4000) };
        let (ts, k, x) = (clock - i64::try_from(behind).expect("small"), below(40), below(1000));
        all.push(match below(100) {
            0 => format!("{{\"id\":{id},\"ts\":\"soon\",\"k\":{k}}}"),
            1 => "not json".to_owned(),
            _ => format!("{{\"id\":{id},\"ts\":{ts},\"k\":{k},\"x\":{x}}}"),
        });
    }
    all
}

/// Two files: two partitions.
pub fn write(bench: &Bench, folder: &str, records: &[String]) {
    for partition in 0..2 {
        let lines: Vec<&str> = records.iter().skip(partition).step_by(2).map(String::as_str).collect();
        bench.write(&format!("{folder}/{partition}.ndjson"), lines.join("\n") + "\n");
    }
}

/// The outputs, each with its statement. `totals` reads another.
const STATEMENTS: &[(&str, &str)] = &[
    (
        "minutes",
        "WITH (lateness = '10 minutes') AS
         SELECT window_start, k, count(*) AS n, count(DISTINCT x) AS xs, sum(x) AS x FROM tumble(e, ts, INTERVAL '1 minute')
         GROUP BY window_start, window_end, k",
    ),
    (
        "hops",
        "AS SELECT window_start, k, count(*) AS n, max(x) AS x FROM hop(e, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
         GROUP BY window_start, window_end, k",
    ),
    (
        "visits",
        "AS SELECT window_start, window_end, k, count(*) AS n FROM session(e, ts, INTERVAL '1 minute', k)
         GROUP BY window_start, window_end, k",
    ),
    ("running", "AS SELECT k, count(*) AS n, max(id) AS last FROM e GROUP BY k"),
    (
        "best",
        "AS SELECT window_start, place, k, n FROM (
             SELECT window_start, window_end, k, n, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY n DESC, k) AS place
             FROM (SELECT window_start, window_end, k, count(*) AS n FROM tumble(e, ts, INTERVAL '1 minute')
                   GROUP BY window_start, window_end, k) AS counted) AS ranked
         WHERE place <= 3",
    ),
    ("appended", "AS SELECT id, k, 100 / x AS share FROM e WHERE k < 4"),
    ("totals", "AS SELECT k, sum(n) AS n, sum(x) AS x FROM minutes GROUP BY k"),
    (
        "lists",
        "AS SELECT window_start, k, array_to_string(array_agg(x ORDER BY x, id), ' ') AS xs,
                 string_agg(DISTINCT CAST(x AS VARCHAR), ' ') AS different,
                 first_value(id) AS first, last_value(id) AS last, median(x) AS median, corr(x, id) AS corr, bit_xor(id) AS bits
         FROM tumble(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, k",
    ),
    ("runs", "WITH (state_ttl = '5 minutes') AS SELECT k, count(*) AS n, min(ts) AS began, stddev(x) AS spread FROM e GROUP BY k"),
    (
        "firsts",
        "WITH (state_ttl = '5 minutes') AS
         SELECT k, id, x FROM e QUALIFY ROW_NUMBER() OVER (PARTITION BY k ORDER BY x DESC) = 1",
    ),
    ("spread", "AS SELECT k, median(n) AS median, max(n) AS most, last_value(n) AS last, bit_or(n) AS bits FROM minutes GROUP BY k"),
    ("newest", "AS SELECT * FROM latest"),
    ("newest_by_rest", "AS SELECT k % 3 AS rest, count(*) AS n, sum(x) AS x, min(id) AS first FROM latest WHERE x < 700 GROUP BY k % 3"),
    (
        "as_of",
        "WITH (lateness = '10 minutes') AS SELECT e.id, e.ts, e.k, l.id AS version, l.x
         FROM e ASOF JOIN latest AS l MATCH_CONDITION (e.ts > l.ts) ON e.k = l.k",
    ),
    (
        "as_of_minutes",
        "AS SELECT window_start, count(*) AS n, sum(x) AS x FROM tumble(as_of, ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
    ),
];

/// Outputs that join, kept apart: a file with all of them and the others would be long to run.
const JOINED: &[(&str, &str)] = &[
    (
        "pairs",
        "WITH (lateness = '10 minutes') AS SELECT a.id, b.id AS other, a.ts
         FROM e a JOIN e b ON a.k = b.k AND b.ts BETWEEN a.ts - INTERVAL '5 seconds' AND a.ts + INTERVAL '20 seconds' AND a.id <> b.id",
    ),
    ("others", "AS SELECT a.id, a.x, f.id AS other, f.x AS y FROM e a LEFT JOIN f ON a.k = f.k AND f.ts BETWEEN a.ts AND a.ts + INTERVAL '9 seconds'"),
    ("all_of_both", "AS SELECT a.id, f.id AS other FROM e a FULL JOIN f ON a.k = f.k AND a.x > f.x AND f.ts BETWEEN a.ts AND a.ts + INTERVAL '1 minute'"),
    ("lonely", "AS SELECT id, ts FROM e a LEFT ANTI JOIN f ON a.k = f.k AND a.id <> f.id AND f.ts BETWEEN a.ts - INTERVAL '10 seconds' AND a.ts + INTERVAL '10 seconds'"),
    (
        "by_minute",
        "AS SELECT a.window_start, a.window_end, a.k, a.n, b.n AS high
         FROM (SELECT window_start, window_end, k, count(*) AS n FROM tumble(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, k) a
         LEFT JOIN (SELECT window_start, window_end, k, count(*) AS n FROM tumble(e, ts, INTERVAL '1 minute') WHERE x > 700
                    GROUP BY window_start, window_end, k) b
         ON a.window_start = b.window_start AND a.window_end = b.window_end AND a.k = b.k",
    ),
    (
        "pairs_by_minute",
        "AS SELECT window_start, count(*) AS n, sum(other) AS others FROM tumble(pairs, ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
    ),
];

/// Outputs whose accounts depend on when epochs end: which change, or which run of rows, is replaced before it is published.
const UNSTEADY: &str = "('newest', 'newest_by_rest', 'runs', 'firsts')";

const OUTPUTS: &[&str] = &[
    "minutes",
    "hops",
    "visits",
    "running",
    "best",
    "appended",
    "totals",
    "lists",
    "runs",
    "firsts",
    "spread",
    "newest",
    "newest_by_rest",
    "as_of",
    "as_of_minutes",
];

/// A pipeline with these outputs, in this order.
fn pipeline_of(outputs: &[&str]) -> String {
    let statement = |name: &&str| STATEMENTS.iter().chain(JOINED).find(|(each, _)| each == name).expect("an output").1;
    let views = outputs.iter().map(|name| format!("CREATE MATERIALIZED VIEW {name} {};\n", statement(name)));
    format!(
        "SET pipeline = 'c';
         CREATE TABLE e (id BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, k BIGINT NOT NULL, x INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
         WITH (connector = 'file', path = 'events', format = 'json', idle_after = '1 hour');
         CREATE TABLE latest (k BIGINT, id BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, x INT, PRIMARY KEY (k), WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
         WITH (connector = 'file', path = 'events', format = 'json', idle_after = '1 hour');
         CREATE TABLE f (id BIGINT NOT NULL, ts TIMESTAMP(3) NOT NULL, k BIGINT NOT NULL, x INT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
         WITH (connector = 'file', path = 'events', format = 'json', idle_after = '1 hour');
         {}",
        views.collect::<String>()
    )
}

fn joined() -> Vec<&'static str> {
    JOINED.iter().map(|(name, _)| *name).collect()
}

/// The pipeline's newest epoch; 0 before there is one.
pub fn newest_epoch(bench: &Bench) -> u64 {
    let Ok(files) = std::fs::read_dir(bench.path("data/c/epochs/0")) else { return 0 };
    let number = |file: std::fs::DirEntry| file.path().file_stem()?.to_str()?.parse().ok();
    files.flatten().filter_map(number).max().unwrap_or(0)
}

/// What one run leaves that nothing disturbed.
fn undisturbed(records: &[String], outputs: &[&str], accounts: &str) -> Vec<(String, Vec<String>)> {
    let bench = Bench::new();
    write(&bench, "events", records);
    bench.write("p.sql", pipeline_of(outputs));
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
    bench.balances("c", records.len());
    let all = bench.everything("c", outputs, accounts);
    for (table, rows) in &all {
        assert!(!rows.is_empty(), "{table} is empty: it tests nothing");
    }
    all
}

fn same(found: &[(String, Vec<String>)], expected: &[(String, Vec<String>)]) {
    for ((table, found), (_, expected)) in found.iter().zip(expected) {
        let lost: Vec<_> = expected.iter().filter(|row| found.binary_search(row).is_err()).take(3).collect();
        let extra: Vec<_> = found.iter().filter(|row| expected.binary_search(row).is_err()).take(3).collect();
        assert!(found == expected, "{table}: {} rows instead of {}; lost {lost:#?}, extra {extra:#?}", found.len(), expected.len());
    }
}

fn killed(outputs: &[&str]) {
    let records = records();
    let accounts = format!("SELECT * FROM ({}) AS accounts WHERE output NOT IN {UNSTEADY}", accounts("c"));
    let expected = undisturbed(&records, outputs, &accounts);
    let bench = Bench::new();
    write(&bench, "events", &records);
    bench.write("p.sql", pipeline_of(outputs));
    let mut in_the_middle = 0;
    for (turn, workers) in (0..).zip(["1", "2", "4", "2", "1", "3"]) {
        // Little ticks and short epochs, so that it can be killed in the middle of things; unbounded, so that it never ends by itself.
        let args = ["run", "p.sql", "--workers", workers, "--epoch-ms", "10", "--set", "rows_per_tick_max=10"];
        let mut run = bench.start(&[&args[..], &["--set", "publish_interval=100 ms"]].concat());
        // The first dies while it starts, the others some epochs further each time.
        let (epoch, begun) = (newest_epoch(&bench) + turn, Instant::now());
        until("epochs are committed", Duration::from_secs(60), || {
            let read_all = begun.elapsed() > Duration::from_secs(3) && turn > 2;
            (newest_epoch(&bench) >= epoch || read_all || run.ended()).then_some(())
        });
        assert!(run.kill(), "turn {turn}: the run had ended before it was killed: {}", run.heard());
        let read =
            bench.rows("SELECT coalesce(min(n), 0) AS n FROM (SELECT sum(rows_in) AS n FROM tidemill.accounting GROUP BY source, output)");
        in_the_middle += usize::from(read != [format!("{{\"n\":{RECORDS}}}")]);
    }
    assert!(in_the_middle >= 3, "only {in_the_middle} of 6 kills came before everything had been read");
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
    bench.balances("c", records.len());
    same(&bench.everything("c", outputs, &accounts), &expected);
    // And once more: there is nothing left to do, so nothing changes.
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", "1"]).exits(0);
    same(&bench.everything("c", outputs, &accounts), &expected);
}

#[test]
fn a_run_killed_again_and_again_leaves_what_an_undisturbed_one_does() {
    killed(OUTPUTS);
}

#[test]
fn joins_that_are_killed_again_and_again_leave_what_undisturbed_ones_do() {
    killed(&joined());
}

fn in_parts(outputs: &[&str]) {
    let records = records();
    let accounts = steady_accounts("c");
    let expected = undisturbed(&records, outputs, &accounts);
    let bench = Bench::new();
    bench.write("p.sql", pipeline_of(outputs));
    let ends = [2, RECORDS / 3, RECORDS / 3 + 2, RECORDS - 1000, RECORDS];
    for (end, workers) in ends.into_iter().zip(["2", "1", "4", "2", "1"]) {
        write(&bench, "events", &records[..end]);
        bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", workers]).exits(0);
        bench.balances("c", end);
    }
    same(&bench.everything("c", outputs, &accounts), &expected);
}

#[test]
fn bounded_runs_over_parts_equal_one_over_all() {
    in_parts(OUTPUTS);
}

#[test]
fn bounded_joins_over_parts_equal_one_over_all() {
    in_parts(&joined());
}

/// The same without the places that dead letters name: they are those of the file as it was.
fn placeless(all: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
    let unplaced = |row: String| match (row.find(" at "), row.find(": division")) {
        (Some(from), Some(to)) if from < to => format!("{}{}", &row[..from], &row[to..]),
        _ => row,
    };
    all.into_iter().map(|(table, rows)| (table, rows.into_iter().map(unplaced).collect())).collect()
}

#[test]
fn outputs_added_later_begin_at_the_start() {
    let records = records();
    let accounts = steady_accounts("c");
    let expected = placeless(undisturbed(&records, OUTPUTS, &accounts));
    let bench = Bench::new();
    // The old outputs stand in another order each time, and new ones stand before them; `totals` reads one that is half done.
    let files: [&[&str]; 3] = [
        &["minutes", "running"],
        &["visits", "running", "minutes", "appended", "as_of"],
        &[
            "best",
            "appended",
            "newest",
            "minutes",
            "totals",
            "as_of",
            "hops",
            "lists",
            "firsts",
            "runs",
            "running",
            "newest_by_rest",
            "spread",
            "visits",
            "as_of_minutes",
        ],
    ];
    for ((outputs, end), workers) in files.into_iter().zip([RECORDS / 3, RECORDS / 2, RECORDS]).zip(["2", "1", "2"]) {
        write(&bench, "events", &records[..end]);
        bench.write("p.sql", pipeline_of(outputs));
        bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--workers", workers]).exits(0);
        bench.balances("c", end);
    }
    same(&placeless(bench.everything("c", OUTPUTS, &accounts)), &expected);
    // What is gone or has changed is refused by name, and nothing is touched.
    for (changed, named) in [(pipeline_of(&OUTPUTS[1..6]), "minutes"), (pipeline_of(OUTPUTS).replace("max(id)", "min(id)"), "running")] {
        bench.write("p.sql", changed);
        let said = bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(2);
        assert!(said.err.contains(&format!("output {named} ")), "{}", said.err);
    }
    same(&placeless(bench.everything("c", OUTPUTS, &accounts)), &expected);
}

#[test]
fn a_difference_would_be_seen() {
    let records = records();
    let accounts = steady_accounts("c");
    let (all, fewer) = (undisturbed(&records, OUTPUTS, &accounts), undisturbed(&records[..RECORDS - 1], OUTPUTS, &accounts));
    assert!(std::panic::catch_unwind(|| same(&fewer, &all)).is_err());
}

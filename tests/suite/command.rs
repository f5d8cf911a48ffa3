//! The command as a user types it: exit codes, what goes to stdout and what to stderr, texts that programs rely on (CONTRACT §5).

use crate::support::{Bench, Said, checkout};

const PIPELINE: &str = "CREATE TABLE e (id BIGINT NOT NULL, ts TIMESTAMP NOT NULL, word VARCHAR, WATERMARK FOR ts AS ts - INTERVAL '1 second')
WITH (connector = 'file', path = 'e.ndjson', format = 'json');
CREATE MATERIALIZED VIEW words AS SELECT window_start, word, count(*) AS n FROM tumble(e, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, word;
";

const EVENTS: &str = r#"{"id":1,"ts":"2026-01-01T00:00:01Z","word":"a,b"}
{"id":2,"ts":"2026-01-01T00:00:02Z","word":"say \"x\""}
{"id":3,"ts":"2026-01-01T00:00:03Z","word":""}
{"id":4,"ts":"2026-01-01T00:00:04Z"}
{"id":5,"ts":"2026-01-01T00:00:05Z","word":"ü"}
broken
"#;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.write("p.sql", PIPELINE);
    bench.write("e.ndjson", EVENTS);
    bench
}

fn run(bench: &Bench) {
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(0);
}

/// No user should ever have to see where in the source an error arose.
fn plain(said: &Said) {
    for trace in [".rs:", "RUST_BACKTRACE", "stack backtrace", "panicked", "/rustc/", "core::"] {
        assert!(!said.err.contains(trace), "{trace} in:\n{}", said.err);
    }
    assert!(said.out.is_empty(), "errors go to stderr, but stdout has:\n{}", said.out);
    assert!(!said.err.trim().is_empty(), "an error says something");
}

#[test]
fn what_is_refused_exits_with_2_and_says_why() {
    let bench = bench();
    run(&bench);
    bench.write("bad.sql", PIPELINE.replace("SELECT window_start, word", "SELECT window_start, wrod"));
    bench.write("writes.sql", "SELECT 1;\nDELETE FROM words;\n");
    bench.write("changed.sql", format!("SET pipeline = 'p';\n{}", PIPELINE.replace("count(*)", "count(word)")));
    let cases: &[(&[&str], &str)] = &[
        (&["nonsense"], "nonsense"),
        (&["run"], "FILE.sql"),
        (&["run", "missing.sql"], "missing.sql"),
        (&["check", "missing.sql"], "missing.sql"),
        (&["run", "p.sql", "--nope"], "--nope"),
        (&["run", "p.sql", "--workers", "0"], "--workers"),
        (&["run", "p.sql", "--set", "nope=1"], "idle_after"),
        (&["run", "p.sql", "--set", "rows_per_tick_max=many"], "rows_per_tick_max"),
        (&["run", "bad.sql"], "bad.sql:3:"),
        (&["check", "bad.sql"], "bad.sql:3:"),
        (&["run", "changed.sql", "--bounded"], "words"),
        (&["run", "p.sql", "--reset"], "--yes"),
        (&["sql", "-c", "DELETE FROM words"], "read-only"),
        (&["sql", "-c", "DROP TABLE words"], "read-only"),
        (&["sql", "-c", "CREATE TABLE x AS SELECT 1"], "read-only"),
        (&["sql", "-c", "COPY words TO 'x.csv'"], "read-only"),
        (&["sql", "-c", "SELECT * FROM wrods"], "words"),
        (&["sql", "-c", "SELECT wrod FROM words"], "wrod"),
        (&["sql", "-c", "SELEC 1"], "SELEC"),
        (&["sql", "-c", ""], "no statement"),
        (&["sql", "--format", "yaml", "-c", "SELECT 1"], "yaml"),
        (&["generate", "nothing", "--out", "x"], "url_shortener"),
        (&["generate", "url_shortener"], "--brokers"),
        (&["demo", "nothing"], "url_shortener"),
        (&["completions", "klingon"], "bash"),
    ];
    for (args, word) in cases {
        let said = bench.tidemill(args);
        assert_eq!(said.code, Some(2), "{args:?}\n{}", said.err);
        assert!(said.err.contains(word), "{args:?} should name {word}:\n{}", said.err);
        plain(&said);
    }
    let said = bench.tidemill_with(&["sql", "--format", "csv"], "SELECT 1 AS one;\nDELETE FROM words;\n");
    assert_eq!((said.code, said.out.trim_end()), (Some(2), "one\n1"), "{}", said.err);
    assert_eq!(bench.rows("SELECT count(*) AS n FROM words"), [r#"{"n":5}"#], "nothing of this changed the tables");
}

#[test]
fn an_error_in_sql_begins_with_its_place() {
    let bench = bench();
    let source = PIPELINE.lines().take(2).collect::<Vec<_>>().join("\n");
    let cases = [
        ("CREATE MATERIALIZED VIEW v AS SELECT nope FROM e;", "3:38", "nope"),
        ("CREATE MATERIALIZED VIEW v AS SELECT now() FROM e;", "3:", "now"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM e LIMIT 3;", "3:", "LIMIT"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM e ORDER BY ts;", "3:", "ORDER BY"),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM TABLE(TUMBLE(TABLE e, DESCRIPTOR(ts), INTERVAL '1' MINUTE));",
            "3:",
            "tumble(",
        ),
        ("CREATE SINK s FROM e WITH (connector = 'kafka');", "3:", "INSERT INTO"),
        ("CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM e EMIT ON WINDOW CLOSE;", "3:", "emit"),
        ("CREATE MATERIALIZED VIEW v AS SELECT * FROM e JOIN e FOR SYSTEM_TIME AS OF e.ts ON true;", "3:", "ASOF"),
        ("CREATE MATERIALIZED VIEW v WITH (latenes = '1 hour') AS SELECT id FROM e;", "3:", "lateness"),
        ("CREATE MATERIALIZED VIEW v AS SELECT rank() OVER (ORDER BY id) FROM e;", "3:", "row_number()"),
    ];
    for (statement, place, word) in cases {
        bench.write("x.sql", format!("{source}\n{statement}\n"));
        let said = bench.tidemill(&["check", "x.sql"]);
        assert_eq!(said.code, Some(2), "{statement}\n{}{}", said.out, said.err);
        let first = said.err.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("x.sql:{place}")) && first.contains(": error: "), "{statement}\n{}", said.err);
        assert!(said.err.contains(word), "{statement} should say {word}:\n{}", said.err);
        plain(&said);
    }
}

#[test]
fn answers_have_four_formats_and_keep_every_digit() {
    let bench = bench();
    run(&bench);
    let query = "SELECT word, n, 0.10 AS d, NULL AS nothing FROM words ORDER BY word NULLS LAST";
    let ask = |format: &str| bench.tidemill(&["sql", "--format", format, "-c", query]).exits(0).out;
    assert_eq!(ask("csv"), "word,n,d,nothing\n\"\",1,0.10,\n\"a,b\",1,0.10,\n\"say \"\"x\"\"\",1,0.10,\nü,1,0.10,\n,1,0.10,\n");
    assert_eq!(
        ask("json"),
        "{\"word\":\"\",\"n\":1,\"d\":0.10,\"nothing\":null}\n{\"word\":\"a,b\",\"n\":1,\"d\":0.10,\"nothing\":null}\n\
         {\"word\":\"say \\\"x\\\"\",\"n\":1,\"d\":0.10,\"nothing\":null}\n{\"word\":\"ü\",\"n\":1,\"d\":0.10,\"nothing\":null}\n\
         {\"word\":null,\"n\":1,\"d\":0.10,\"nothing\":null}\n"
    );
    let table = ask("table");
    assert!(table.contains("a,b") && table.contains("(5 rows)"), "{table}");
    let output = bench.command(&["sql", "--format", "arrow", "-c", query]).output().expect("starts");
    let reader = arrow::ipc::reader::StreamReader::try_new(output.stdout.as_slice(), None).expect("an Arrow stream");
    assert_eq!(reader.map(|batch| batch.expect("reads").num_rows()).sum::<usize>(), 5);
    let two = bench.tidemill(&["sql", "--format", "json", "-c", "SELECT 1 AS a", "-c", "SELECT 2 AS b"]).exits(0);
    assert_eq!(two.out, "{\"a\":1}\n{\"b\":2}\n");
}

#[test]
fn tables_go_by_long_and_short_names_and_show_their_changes() {
    let bench = bench();
    run(&bench);
    let count = |table: &str| bench.rows(&format!("SELECT count(*) AS n FROM {table}"));
    assert_eq!(count("p.words"), [r#"{"n":5}"#]);
    assert_eq!(count("words"), [r#"{"n":5}"#]);
    assert_eq!(bench.rows(r#"SELECT sum(_weight) AS net, min(_epoch) > 0 AS numbered FROM "words$log""#), [r#"{"net":5,"numbered":true}"#]);
    assert_eq!(bench.rows("SELECT reason, payload IS NOT NULL AS kept FROM dead_letters"), [r#"{"reason":"not_json","kept":true}"#]);
    assert_eq!(bench.rows("SELECT pipeline FROM tidemill.pipelines"), [r#"{"pipeline":"p"}"#]);
    bench.balances("p", 6);
    // A second pipeline makes the bare name ambiguous.
    bench.write("q.sql", PIPELINE);
    bench.tidemill(&["run", "q.sql", "--bounded", "--quiet"]).exits(0);
    let said = bench.tidemill(&["sql", "-c", "SELECT * FROM words"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("p.words") && said.err.contains("q.words"), "{}", said.err);
}

#[test]
fn results_go_to_stdout_and_all_else_to_stderr() {
    let bench = bench();
    let said = bench.tidemill(&["run", "p.sql", "--bounded"]).exits(0);
    assert!(said.out.is_empty() && said.err.contains("pipeline p"), "{}\n{}", said.out, said.err);
    let quiet = bench.tidemill(&["run", "p.sql", "--bounded", "--quiet"]).exits(0);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("", ""));
    let help = bench.tidemill(&["--help"]).exits(0);
    for command in ["demo", "run", "sql", "check", "generate", "verify", "--brokers", "--data", "--workers", "--epoch-ms", "TIDEMILL_DATA"]
    {
        assert!(help.out.contains(command), "{command}");
    }
    assert!(bench.tidemill(&["completions", "bash"]).exits(0).out.contains("_tidemill()"));
    assert!(bench.tidemill(&["--version"]).exits(0).out.starts_with("tidemill "));
    assert!(bench.tidemill(&["demo", "--list"]).exits(0).out.contains("url_shortener"));
}

#[test]
fn check_shows_plan_and_state_and_touches_nothing() {
    let bench = bench();
    let said = bench.tidemill(&["check", "p.sql"]).exits(0);
    for part in ["source e", "output words", "window_start", "state"] {
        assert!(said.out.contains(part), "{part} in\n{}", said.out);
    }
    assert!(!bench.path("data").exists());
    let case = checkout("pipelines/clicks/url_shortener/pipeline.sql");
    assert!(bench.tidemill(&["check", &case.display().to_string()]).exits(0).out.contains("visitor_sessions"));
}

#[test]
fn a_reset_begins_anew() {
    let bench = bench();
    run(&bench);
    bench.write("e.ndjson", EVENTS.lines().take(2).map(|line| format!("{line}\n")).collect::<String>());
    bench.tidemill(&["run", "p.sql", "--bounded", "--quiet", "--reset", "--yes"]).exits(0);
    assert_eq!(bench.rows("SELECT count(*) AS n FROM p.words"), [r#"{"n":2}"#]);
    bench.balances("p", 2);
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let bench = Bench::new();
    let make = |out: &str, seed: &str| {
        bench.tidemill(&["generate", "url_shortener", "--out", out, "--count", "3000", "--seed", seed, "--quiet"]).exits(0);
        std::fs::read(bench.path(out).join("url.clicks.ndjson")).expect("written")
    };
    let (a, again, other) = (make("a", "7"), make("b", "7"), make("c", "8"));
    assert!(a == again && a != other && a.len() > 100_000);
}

#[test]
fn a_data_folder_that_is_not_ours_is_left_alone() {
    let bench = bench();
    bench.write("data/p/holiday.jpg", "x");
    let said = bench.tidemill(&["run", "p.sql", "--bounded"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("holiday.jpg"), "{}", said.err);
    let said = bench.tidemill(&["run", "p.sql", "--bounded", "--reset", "--yes"]);
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(bench.path("data/p/holiday.jpg").exists());
}

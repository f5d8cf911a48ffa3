//! The SQL reference: its examples are one pipeline, which runs as it stands there and equals the batch.

use crate::support::{Bench, accounts, checkout};

/// The ```sql blocks of a page.
fn examples(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(checkout(page)).expect("is there");
    let blocks = text.split("```sql\n").skip(1);
    blocks.map(|block| block.split_once("\n```").expect("a block ends").0.to_owned()).collect()
}

#[test]
fn every_example_of_the_reference_runs_and_is_what_the_batch_says() {
    let examples = examples("docs/sql.md");
    assert!(examples.len() >= 9, "only {} examples", examples.len());
    let bench = Bench::new();
    let ts = |minute: i64| 1_767_225_600_000 + minute * 60_000;
    let clicks = (0..40).map(|n| {
        let body = format!(r#"{{\"page\":{{\"title\":\"p{n}\"}},\"scores\":[{n}]}}"#);
        format!(
            r#"{{"id":{n},"ts":{},"link_id":{},"visitor_id":"v{}","tags":["a","t{}"],"meta":{{"ua":"Mozilla/5.0"}},"body":"{body}"}}"#,
            ts(n * 3),
            n % 3,
            n % 5,
            n % 2
        )
    });
    let purchases = (0..20).map(|n| {
        format!(r#"{{"order_id":{},"ts":{},"visitor_id":"v{}","person":{},"amount":"{n}.50"}}"#, n / 2, ts(n * 6 + 1), n % 7, n % 3)
    });
    let people = (0..4).map(|n| format!(r#"{{"id":{},"city":"c{n}","since":{}}}"#, n % 3, ts(n * 20)));
    let lines = |lines: &mut dyn Iterator<Item = String>| lines.map(|line| line + "\n").collect::<String>();
    bench.write("topics/clicks.ndjson", lines(&mut { clicks }));
    bench.write("topics/purchases.ndjson", lines(&mut { purchases }));
    bench.write("topics/people.ndjson", lines(&mut { people }));
    let mut sql = format!("SET pipeline = 'docs';\n{}", examples.join("\n"));
    // Files stand for the topics, and nothing for the topic of a sink; a record of a file has no key.
    sql = sql
        .replace("connector = 'kafka', topic = 'alerts', format = 'json'", "connector = 'blackhole'")
        .replace(", key_format = 'text'", "");
    for topic in ["clicks", "purchases", "people"] {
        let file = bench.path(&format!("topics/{topic}.ndjson"));
        sql = sql.replace(&format!("connector = 'kafka', topic = '{topic}'"), &format!("connector = 'file', path = '{}'", file.display()));
    }
    bench.write("docs.sql", sql);
    bench.tidemill(&["run", "docs.sql", "--bounded", "--quiet"]).exits(0);
    bench.tidemill(&["verify", "docs.sql"]).exits(0);
    for row in bench.rows(&accounts("docs")) {
        assert!(row.contains(r#""unplaced":0"#), "{row}");
    }
    let tables = bench.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'docs'");
    for name in ["placed", "converted", "hot_links", "visits", "once", "of_visitors", "totals", "parsed", "clicks_and_sales"] {
        assert!(tables.iter().any(|table| table.contains(&format!("\"{name}\""))), "{name} of {tables:?}");
        assert!(!bench.rows(&format!("SELECT * FROM docs.{name} LIMIT 1")).is_empty(), "{name} is empty");
    }
}

//! The case study's golden input: 206 clicks, what is known of their links, and orders, whose every answer was checked by reading. `TIDEMILL_BLESS=1` writes the answers anew.

use crate::support::{Bench, accounts, checkout, golden, over_files};

const FOLDER: &str = "pipelines/clicks/url_shortener";

fn read(name: &str) -> String {
    std::fs::read_to_string(checkout(&format!("{FOLDER}/{name}"))).expect("is there")
}

#[test]
fn every_question_has_its_golden_answer() {
    let bench = Bench::new();
    let sources = ["clicks", "links", "conversions"].map(|source| (source, read(&format!("golden/{source}.ndjson"))));
    for (source, records) in &sources {
        bench.write(&format!("topics/url.{source}/0.ndjson"), records);
    }
    bench.write("pipeline.sql", over_files(&read("pipeline.sql"), &bench.path("topics")));
    bench.tidemill(&["run", "pipeline.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
    for row in bench.rows(&accounts("url_shortener")) {
        let read = sources.iter().find(|(source, _)| row.contains(&format!(r#""source":"{source}","#))).expect("a source");
        assert!(row.contains(r#""unplaced":0"#) && row.contains(&format!(r#""rows_in":{},"#, read.1.lines().count())), "{row}");
    }

    let questions = read("questions.sql");
    let mut answers = String::new();
    for part in questions.split("-- Q: ").skip(1) {
        let (question, query) = part.split_once('\n').expect("a query below its question");
        let said = bench.tidemill(&["sql", "-c", query]).exits(0);
        answers.push_str(&format!("Q: {question}\n\n{}\n", said.out));
    }
    // The file as a whole, as its first line tells a user to run it, says the same.
    let whole = bench.tidemill_with(&["sql"], &questions).exits(0);
    let rows = |text: &str| text.lines().filter(|line| line.contains('|') || line.ends_with(" row)") || line.ends_with(" rows)")).count();
    assert_eq!(rows(&whole.out), rows(&answers));

    answers.push_str("The accounts\n\n");
    answers.push_str(&bench.tidemill(&["sql", "-c", &accounts("url_shortener")]).exits(0).out);
    golden(&format!("{FOLDER}/golden/answers.txt"), &answers);
}

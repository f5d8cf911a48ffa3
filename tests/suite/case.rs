//! The case study's golden input: 206 records whose every answer was checked by reading. `TIDEMILL_BLESS=1` writes the answers anew.

use crate::support::{Bench, accounts, checkout, golden, over_file};

const FOLDER: &str = "pipelines/clicks/url_shortener";

fn read(name: &str) -> String {
    std::fs::read_to_string(checkout(&format!("{FOLDER}/{name}"))).expect("is there")
}

#[test]
fn every_question_has_its_golden_answer() {
    let bench = Bench::new();
    let clicks = bench.write("clicks.ndjson", read("golden/clicks.ndjson"));
    let records = read("golden/clicks.ndjson").lines().count();
    bench.write("pipeline.sql", over_file(&read("pipeline.sql"), &clicks));
    bench.tidemill(&["run", "pipeline.sql", "--bounded", "--quiet", "--workers", "2"]).exits(0);
    bench.balances("url_shortener", records);

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

//! One small pipeline for each element of the dialect, over the same 36 records: equal to batch in every way of running it, and to a
//! golden file that a person can check by reading.
//!
//! To add one: a file `dialect/NAME.sql`, then `TIDEMILL_BLESS=1 cargo test --test suite dialect` and a look at what was written.

use tidemill_pipelines::runner::Pipeline;

use crate::oracle::{Rows, Tables, proven};
use crate::support::{checkout, golden, steady_accounts};

const FOLDER: &str = "tests/suite/dialect";

fn shown(pipeline: &Pipeline, tables: &Tables) -> String {
    let mut text = String::new();
    let mut part = |title: &str, query: &str| {
        text.push_str(&format!("{title}\n{}\n", Rows::of(&tables.ask(query)).text()));
    };
    for output in &pipeline.planned {
        part(&format!("== {}", output.name), &format!("SELECT * FROM d.{}", output.name));
    }
    part("== late events", "SELECT output, \"partition\", \"offset\", event_time, watermark, window_start, window_end FROM d.late_events");
    part("== dead letters", "SELECT output, \"partition\", \"offset\", reason, detail FROM d.dead_letters");
    part("== accounts", &steady_accounts("d"));
    text
}

fn examples() -> Vec<String> {
    let files = std::fs::read_dir(checkout(FOLDER)).expect("is there").map(|file| file.expect("listed").path());
    let names = files.filter(|file| file.extension().is_some_and(|ending| ending == "sql"));
    let mut names: Vec<String> = names.map(|file| file.file_stem().expect("named").to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "source");
    names.sort();
    names
}

fn example(name: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(checkout(&format!("{FOLDER}/{name}.sql"))).expect("is there");
    format!("{}\n{}", read("source"), read(name)).replace("EVENTS", &events())
}

fn events() -> String {
    checkout(&format!("{FOLDER}/events")).display().to_string()
}

#[test]
fn every_example_equals_batch_and_its_golden_file() {
    let examples = examples();
    assert!(examples.len() >= 14, "{examples:?}");
    let only = std::env::var("TIDEMILL_EXAMPLE").ok();
    for name in examples.iter().filter(|name| only.as_ref().is_none_or(|only| only == *name)) {
        let pipeline = Pipeline::parse(name, &example(name)).unwrap_or_else(|error| panic!("{error}"));
        println!("{name}");
        let (text, _) = proven(&pipeline, &|tables| shown(&pipeline, tables));
        let text = text.replace(&events(), "EVENTS");
        golden(&format!("{FOLDER}/{name}.txt"), &text);
    }
}

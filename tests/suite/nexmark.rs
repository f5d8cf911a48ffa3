//! Nexmark's queries: every table equals DataFusion's batch over the same auction, in every way of running the file.

use std::collections::BTreeMap;

use tidemill_pipelines::runner::Pipeline;

use crate::oracle::{Rows, proven};

#[test]
fn every_query_equals_batch() {
    let case = tidemill_pipelines::cases::find("nexmark").expect("is there");
    let generated = tidemill_connectors::generator::find("nexmark").expect("is there");
    let settings = tidemill_connectors::generator::Settings { seed: 7, partitions: 2, rate_per_s: 60.0, ..Default::default() };
    let mut workload = (generated.make)(&settings);
    let mut files: BTreeMap<(&str, u32), Vec<u8>> = BTreeMap::new();
    for _ in 0..10_000 {
        let record = workload.next();
        let file = files.entry((record.topic, record.partition)).or_default();
        file.extend(record.value.unwrap_or_default());
        file.push(b'\n');
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut sql = case.pipeline_sql.to_owned();
    for topic in generated.topics {
        std::fs::create_dir(folder.path().join(topic)).expect("made");
        let path = folder.path().join(topic);
        sql = sql.replace(&format!("'kafka', topic = '{topic}'"), &format!("'file', path = '{}'", path.display()));
    }
    for ((topic, partition), bytes) in files {
        std::fs::write(folder.path().join(topic).join(format!("{partition}.ndjson")), bytes).expect("written");
    }
    let pipeline = Pipeline::parse("pipeline.sql", &sql).unwrap_or_else(|error| panic!("{error}"));
    let dead = |tables: &crate::oracle::Tables| Rows::of(&tables.ask("SELECT count(*) FROM nexmark.dead_letters")).text();
    let (_, report) = proven(&pipeline, &dead);
    for output in &pipeline.planned {
        let check = report.checks.iter().find(|check| check.of == output.name && check.what == "rows").expect("was compared");
        assert!(check.expected > 0, "{} has no rows to compare", output.name);
    }
}

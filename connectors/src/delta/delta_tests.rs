//! The publisher against a map: random change streams, publishes repeated, torn and raced, read back at every version.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit, TimestampMicrosecondType};
use tidemill_engine::error::Kind;

use super::*;

type Table = BTreeMap<(Option<i64>, i64), String>;

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("k", DataType::Int64, true),
        Field::new("v", DataType::Utf8View, false),
    ])
}

fn entry(key: Vec<usize>) -> TableEntry {
    let folder = "tables/t".to_owned();
    TableEntry {
        name: "t".into(),
        folder,
        visible: 3,
        schema: schema(),
        key,
        version: None,
        log_version: None,
        covered: 0,
        hot: Vec::new(),
    }
}

fn batch(rows: &[(Option<i64>, i64, String, i64)]) -> RecordBatch {
    let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new(net::WEIGHT_COLUMN, DataType::Int64, false));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(arrow::array::StringViewArray::from_iter_values(rows.iter().map(|row| &row.2))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
}

fn rows(folder: &Path, version: u64) -> Vec<RecordBatch> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let files = runtime.block_on(files_at(folder, version)).expect("lists");
    files
        .iter()
        .flat_map(|file| rewrite::survivors(folder, &file.name, None).expect("opens").collect::<Result<Vec<_>>>().expect("reads"))
        .collect()
}

fn read(folder: &Path, version: u64) -> Table {
    let mut table = Table::new();
    for batch in rows(folder, version) {
        let at = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let keys = batch.column(1).as_primitive::<Int64Type>();
        let values = arrow::compute::cast(batch.column(2), &DataType::Utf8).expect("text");
        let values: &StringArray = values.as_string();
        for row in 0..batch.num_rows() {
            let key = (keys.is_valid(row).then(|| keys.value(row)), at.value(row));
            assert!(table.insert(key, values.value(row).to_owned()).is_none(), "{key:?} stands twice");
        }
    }
    table
}

/// Numbers from a seed: the same on every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

fn changes(numbers: &mut Numbers, model: &mut Table, epoch: u64) -> RecordBatch {
    let mut out = Vec::new();
    for _ in 0..numbers.below(20) {
        let key = (Some(numbers.below(6) as i64).filter(|key| *key > 0), numbers.below(5) as i64 * 1_000_000 + epoch as i64 / 5);
        let old = model.get(&key).cloned();
        if let Some(old) = &old {
            out.push((key.0, key.1, old.clone(), -1));
        }
        if old.is_none() || numbers.below(3) > 0 {
            let new = format!("{epoch}-{}", numbers.below(1000));
            out.push((key.0, key.1, new.clone(), 1));
            // A replacement may stand in front of the retraction of what it replaces.
            let last = out.len() - 1;
            if old.as_ref().is_some_and(|old| *old != new) && numbers.below(2) == 0 {
                out.swap(last - 1, last);
            }
            model.insert(key, new);
        } else {
            model.remove(&key);
        }
    }
    batch(&out)
}

#[test]
fn any_stream_of_changes_gives_the_rows_a_map_would_hold_at_every_version() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut publisher = DeltaPublisher::new(folder.path(), "u1", true).expect("starts");
        let mut numbers = Numbers(seed);
        let (mut entry, mut model, mut waiting, mut seen) = (entry(vec![1, 0]), Table::new(), Vec::new(), Vec::new());
        publisher.create(&entry).expect("creates");
        for epoch in 1..=24 {
            waiting.push((epoch, changes(&mut numbers, &mut model, epoch)));
            if numbers.below(3) > 0 {
                continue;
            }
            let published = publisher.publish(&entry, epoch, &waiting).expect("publishes");
            if numbers.below(3) == 0 {
                // The process dies before the manifest that would name this version; it publishes later epochs on top.
                publisher = DeltaPublisher::new(folder.path(), "u1", true).expect("starts");
                assert_eq!(publisher.publish(&entry, epoch, &waiting).expect("again").version, published.version);
                continue;
            }
            entry = TableEntry { version: Some(published.version), log_version: published.log_version, covered: epoch, ..entry };
            waiting.clear();
            seen.push((published.version, model.clone()));
        }
        let published = publisher.publish(&entry, 24, &waiting).expect("publishes");
        seen.push((published.version, model));
        for (version, model) in seen {
            assert_eq!(read(&folder.path().join("tables/t"), version), model, "seed {seed}, version {version}");
        }
        let log = rows(&folder.path().join("log/t"), published.log_version.expect("a log"));
        assert!(log.iter().all(|batch| batch.num_columns() == 5));
    }
}

#[test]
fn small_files_are_merged_and_the_versions_before_stay_readable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut publisher = DeltaPublisher::new(folder.path(), "u1", false).expect("starts");
    let mut entry = entry(Vec::new());
    let mut versions = Vec::new();
    for epoch in 1..=52 {
        let change = batch(&[(Some(epoch as i64), epoch as i64, "x".into(), 1)]);
        let published = publisher.publish(&entry, epoch, &[(epoch, change)]).expect("publishes");
        entry = TableEntry { version: Some(published.version), covered: epoch, ..entry };
        versions.push(published.version);
    }
    let path = folder.path().join("tables/t");
    for (version, rows) in versions.iter().zip(1..).step_by(6) {
        assert_eq!(read(&path, *version).len(), rows, "version {version}");
    }
    let checkpoints = std::fs::read_dir(path.join("_delta_log"))
        .expect("lists")
        .filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().contains("checkpoint"));
    assert!(checkpoints.count() > 1, "a checkpoint and the hint");
    assert!(rows(&path, *versions.last().expect("some")).len() < 32);
}

#[test]
fn a_publish_meets_commits_of_others_and_keeps_their_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut publisher = DeltaPublisher::new(folder.path(), "u1", false).expect("starts");
    let mut entry = entry(vec![1]);
    let mut version = publisher.publish(&entry, 1, &[(1, batch(&[(Some(1), 1, "a".into(), 1)]))]).expect("publishes").version;
    // The same table under another uuid's mark: a foreign writer that appends behind our back.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut foreign = Cold::open(folder.path().join("tables/t"), "t", "u1", &schema(), None).await.expect("opens");
        let mut writer = foreign.writer().expect("a writer");
        let row = batch(&[(Some(9), 9, "theirs".into(), 1)]);
        writer.write(stored::to_stored(&row, &foreign.schema().expect("columns")).expect("casts")).await.expect("writes");
        let adds = foreign.close(writer).await.expect("closes");
        foreign.commit(&Staged { adds, removes: Vec::new() }, Some(("someone", 1))).await.expect("commits");
    });
    entry = TableEntry { version: Some(version), covered: 1, ..entry };
    version = publisher.publish(&entry, 2, &[(2, batch(&[(Some(1), 2, "b".into(), 1)]))]).expect("publishes").version;
    let held = read(&folder.path().join("tables/t"), version);
    assert_eq!(held, Table::from([((Some(1), 2), "b".into()), ((Some(9), 9), "theirs".into())]));
}

#[test]
fn a_folder_of_another_uuid_or_one_that_lost_versions_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let change = (1, batch(&[(Some(1), 1, "a".into(), 1)]));
    DeltaPublisher::new(folder.path(), "u1", false)
        .expect("starts")
        .publish(&entry(vec![1]), 1, std::slice::from_ref(&change))
        .expect("publishes");
    let other = DeltaPublisher::new(folder.path(), "u2", false)
        .expect("starts")
        .publish(&entry(vec![1]), 1, std::slice::from_ref(&change))
        .expect_err("refused");
    assert_eq!(other.kind(), Kind::Refused);
    assert!(other.message().contains("--reset"), "{other}");
    let lost = TableEntry { version: Some(7), covered: 1, ..entry(vec![1]) };
    let lost = DeltaPublisher::new(folder.path(), "u1", false)
        .expect("starts")
        .publish(&lost, 2, std::slice::from_ref(&change))
        .expect_err("refused");
    assert!(lost.message().contains("not there"), "{lost}");
    let old = DeltaPublisher::new(folder.path(), "u1", false).expect("starts").publish(&entry(vec![1]), 0, &[change]).expect_err("refused");
    assert!(old.message().contains("older than the tables"), "{old}");
    let outside = TableEntry { folder: "../x".into(), ..entry(vec![1]) };
    assert!(DeltaPublisher::new(folder.path(), "u1", false).expect("starts").publish(&outside, 1, &[]).is_err());
}

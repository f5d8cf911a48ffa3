//! Queries over folders made by hand: random changes against a map at every epoch, hot and cold; names, refusals, limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use tidemill_connectors::delta::DeltaPublisher;
use tidemill_engine::epoch::manifest::{FORMAT, HotFile, Manifest, StateEntry, StateFile, TableEntry};
use tidemill_engine::epoch::segment::Segment;
use tidemill_engine::epoch::store::{LocalStore, Store};
use tidemill_engine::epoch::system;
use tidemill_engine::error::Kind;

use super::format::{Format, Printer};
use super::*;

type Row = (Option<i64>, i64, String);

/// A pipeline folder that is written epoch by epoch.
struct Folder {
    store: LocalStore,
    manifest: Manifest,
    publisher: DeltaPublisher,
    waiting: Vec<(u64, RecordBatch)>,
}

fn schema() -> Schema {
    Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        Field::new("v", DataType::Utf8View, false),
        Field::new("k", DataType::Int64, true),
    ])
}

fn changes(rows: &[(Option<i64>, i64, &str, i64)]) -> RecordBatch {
    let mut fields: Vec<Field> = schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields.push(Field::new("_weight", DataType::Int64, false));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))),
    ];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("a batch")
}

impl Folder {
    /// A pipeline with one table `t`: its key is (k, at), or nothing; `visible` columns are shown.
    fn new(data: &Path, pipeline: &str, key: Vec<usize>, visible: usize) -> Self {
        let root = data.join(pipeline);
        let store = LocalStore::open(&root).expect("opens");
        let user = TableEntry {
            name: "t".into(),
            folder: "tables/t".into(),
            schema: schema(),
            key,
            visible,
            version: None,
            log_version: None,
            covered: 0,
            hot: Vec::new(),
        };
        let manifest = Manifest {
            format: FORMAT,
            epoch: 0,
            pipeline: pipeline.into(),
            uuid: "u".into(),
            incarnation: "i".into(),
            build: "test".into(),
            hash_id: "h".into(),
            plan: Vec::new(),
            workers: 1,
            committed_at_ms: 1_735_689_600_000,
            sources: Vec::new(),
            watermarks: Vec::new(),
            accounts: Vec::new(),
            state: Vec::new(),
            tables: std::iter::once(user).chain(system::entries()).collect(),
            sinks: Vec::new(),
            journal: None,
            ended: false,
            published_open: false,
        };
        let folder = Self { store, manifest, publisher: DeltaPublisher::new(&root, "u", true).expect("starts"), waiting: Vec::new() };
        folder.commit();
        folder
    }

    fn commit(&self) {
        let bytes = serde_json::to_vec(&self.manifest).expect("JSON");
        assert!(self.store.put_new(&format!("epochs/0/{:020}.json", self.manifest.epoch), &bytes).expect("writes"));
    }

    /// One epoch of changes; `publish` brings Delta up to the epoch before it.
    fn epoch(&mut self, batch: RecordBatch, publish: bool) {
        self.manifest.epoch += 1;
        let epoch = self.manifest.epoch;
        let mut segment = Segment::new(format!("epochs/0/{epoch}.segment"));
        let rows = batch.num_rows() as u64;
        let section = segment.append_batches(&batch.schema(), std::slice::from_ref(&batch)).expect("encodes");
        self.store.put_new(segment.path(), segment.bytes()).expect("writes");
        let entry = self.manifest.tables.first_mut().expect("the table");
        if publish {
            let published = self.publisher.publish(entry, epoch - 1, &self.waiting).expect("publishes");
            entry.version = Some(published.version);
            entry.log_version = published.log_version;
            entry.covered = epoch - 1;
            entry.hot.clear();
            self.waiting.clear();
        }
        entry.hot.push(HotFile { epoch, section, rows });
        self.waiting.push((epoch, batch));
        self.commit();
    }
}

fn serve(data: &Path) -> Serve {
    Serve::new(data, Language::default(), QueryOptions { threads: 2, ..QueryOptions::default() }).expect("starts")
}

fn block<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime").block_on(task)
}

/// The answer as CSV lines without the header.
fn lines(serve: &Serve, sql: &str) -> Vec<String> {
    let text = block(async {
        let answer = serve.query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let mut out = Vec::new();
        let mut printer = Printer::new(Format::Csv, &answer.schema, &mut out).expect("begins");
        for batch in answer.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}")) {
            printer.write(&batch).expect("writes");
        }
        printer.finish().expect("ends");
        String::from_utf8(out).expect("text")
    });
    text.lines().skip(1).map(str::to_owned).collect()
}

fn refusal(serve: &Serve, sql: &str) -> String {
    let error = block(async { serve.query(sql).await.map(|_| ()) }).expect_err(sql);
    assert_eq!(error.kind(), Kind::Refused, "{sql}: {error}");
    error.message().to_owned()
}

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn at_every_epoch_queries_see_what_a_map_would_hold() {
    for seed in 0..3 {
        let data = tempfile::tempdir().expect("a folder");
        let mut folder = Folder::new(data.path(), "p", vec![2, 0], 3);
        let serve = serve(data.path());
        let mut numbers = Numbers(seed);
        let mut model: BTreeMap<(Option<i64>, i64), String> = BTreeMap::new();
        let mut log = 0;
        for epoch in 1..=12 {
            let mut rows: Vec<(Row, i64)> = Vec::new();
            for _ in 0..numbers.below(8) {
                let key = (Some(numbers.below(5) as i64).filter(|key| *key > 0), numbers.below(3) as i64);
                if let Some(old) = model.remove(&key) {
                    rows.push(((key.0, key.1, old), -1));
                }
                if numbers.below(3) > 0 {
                    let new = format!("{epoch}-{}", numbers.below(100));
                    rows.push(((key.0, key.1, new.clone()), 1));
                    model.insert(key, new);
                }
            }
            log += rows.len();
            let rows: Vec<_> = rows.iter().map(|(row, weight)| (row.0, row.1, row.2.as_str(), *weight)).collect();
            folder.epoch(changes(&rows), numbers.below(3) == 0);
            let show = |key: &(Option<i64>, i64), value: &String| {
                format!("{},{},{value}", key.0.map_or(String::new(), |key| key.to_string()), key.1)
            };
            let expected: Vec<String> = model.iter().map(|(key, value)| show(key, value)).collect();
            let got = lines(&serve, "SELECT k, CAST(at AS BIGINT) / 1 AS at, v FROM t ORDER BY k NULLS FIRST, at");
            assert_eq!(got, expected, "seed {seed}, epoch {epoch}");
            assert_eq!(lines(&serve, "SELECT count(*) FROM p.t"), vec![model.len().to_string()]);
            let some = model.iter().filter(|(key, _)| key.0 == Some(2) && key.1 > 0).count();
            assert_eq!(lines(&serve, "SELECT count(v) FROM t WHERE k = 2 AND at > TIMESTAMP '1970-01-01'"), vec![some.to_string()]);
            assert_eq!(lines(&serve, r#"SELECT count(*) FROM "t$log" WHERE _epoch > 0"#), vec![log.to_string()]);
            assert_eq!(lines(&serve, "SELECT v FROM t LIMIT 1").len(), model.len().min(1));
        }
    }
}

#[test]
fn a_reader_of_an_old_manifest_still_finds_its_files_and_crashed_publishes_double_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    let mut folder = Folder::new(data.path(), "p", vec![2], 2);
    folder.epoch(changes(&[(Some(1), 1, "a", 1), (None, 1, "n", 1)]), false);
    folder.epoch(changes(&[(Some(1), 1, "a", -1), (Some(1), 2, "b", 1)]), true);
    let old = snapshot::Snapshot::open(data.path()).expect("opens");
    // A publish whose manifest never came, then the same epochs again.
    let entry = folder.manifest.tables.first().expect("the table").clone();
    let first = folder.publisher.publish(&entry, 2, &folder.waiting).expect("publishes");
    folder.epoch(changes(&[(Some(2), 3, "c", 1)]), true);
    assert_eq!(folder.manifest.tables.first().expect("the table").version, Some(first.version));
    let serve = serve(data.path());
    assert_eq!(
        lines(&serve, "SELECT * FROM t ORDER BY v"),
        ["1970-01-01T00:00:00.000002Z,b", "1970-01-01T00:00:00.000003Z,c", "1970-01-01T00:00:00.000001Z,n"]
    );
    let tables = catalog::Tables { snapshot: old };
    let table = tables.find(None, "t").expect("is there");
    let context = datafusion::prelude::SessionContext::new();
    context.register_table("old", table).expect("registers");
    let rows = block(async { context.sql("SELECT v FROM old ORDER BY v").await.expect("plans").collect().await.expect("runs") });
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
}

#[test]
fn hidden_key_columns_are_not_shown_and_a_log_has_epoch_and_weight() {
    let data = tempfile::tempdir().expect("a folder");
    let mut folder = Folder::new(data.path(), "p", vec![2], 2);
    folder.epoch(changes(&[(Some(1), 1, "a", 1)]), false);
    folder.epoch(changes(&[(Some(1), 1, "a", -1)]), true);
    let serve = serve(data.path());
    assert_eq!(lines(&serve, "SELECT * FROM t"), Vec::<String>::new());
    assert_eq!(
        lines(&serve, r#"SELECT * FROM "t$log" ORDER BY _epoch"#),
        ["1970-01-01T00:00:00.000001Z,a,1,1", "1970-01-01T00:00:00.000001Z,a,2,-1"]
    );
    assert!(refusal(&serve, "SELECT k FROM t").contains("k"));
}

#[test]
fn bare_names_are_found_and_wrong_ones_are_told_apart() {
    let data = tempfile::tempdir().expect("a folder");
    let serve = serve(data.path());
    assert!(refusal(&serve, "SELECT * FROM t").contains("holds no pipeline yet"));
    assert_eq!(lines(&serve, "SELECT 0.1 + 0.2 AS d, CAST('2025-01-01' AS TIMESTAMP) AS at"), ["0.3,2025-01-01T00:00:00Z"]);
    let _p = Folder::new(data.path(), "p", Vec::new(), 3);
    assert_eq!(lines(&serve, "SELECT * FROM t"), Vec::<String>::new());
    assert_eq!(lines(&serve, "SELECT count(*) FROM dead_letters"), ["0"]);
    assert_eq!(refusal(&serve, "SELECT * FROM dead_leters"), "-c:1:15: error: there is no table dead_leters; did you mean dead_letters?");
    let _q = Folder::new(data.path(), "q", Vec::new(), 3);
    assert_eq!(refusal(&serve, "SELECT * FROM t"), "-c:1:15: error: t is in several pipelines: write p.t or q.t");
    assert_eq!(lines(&serve, "SELECT count(*) FROM q.t JOIN p.t AS other ON q.t.k = other.k"), ["0"]);
    assert!(refusal(&serve, "SELECT * FROM r.t").contains("no pipeline r"));
    assert_eq!(lines(&serve, "SELECT pipeline, epoch, committed_at, workers FROM tidemill.pipelines ORDER BY pipeline").len(), 2);
    assert_eq!(lines(&serve, "SELECT * FROM tidemill.accounting"), Vec::<String>::new());
    let tables = lines(
        &serve,
        "SELECT table_schema || '.' || table_name FROM information_schema.tables WHERE table_schema <> 'information_schema' ORDER BY 1",
    );
    assert_eq!(tables.first().map(String::as_str), Some("p.dead_letters"), "{tables:?}");
    assert!(tables.contains(&"tidemill.epochs".to_owned()));
    assert!(lines(&serve, "SHOW TABLES").len() >= tables.len());
    assert_eq!(lines(&serve, "DESCRIBE p.t").len(), 3);
    assert_eq!(lines(&serve, "WITH a AS (SELECT 1 AS x), b AS (SELECT * FROM a) SELECT * FROM b"), ["1"]);
    assert_eq!(lines(&serve, "SELECT encode(CAST('hi' AS VARBINARY), 'hex')"), ["6869"]);
}

#[test]
fn live_state_is_a_table_without_the_engines_columns() {
    let data = tempfile::tempdir().expect("a folder");
    let mut folder = Folder::new(data.path(), "p", Vec::new(), 3);
    let fields = ["_hash", "k", "n", "_expires"].map(|name| Field::new(name, DataType::Int64, false));
    let schema = Schema::new(fields.to_vec());
    let column = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let rows = RecordBatch::try_new(
        Arc::new(schema.clone()),
        vec![column(vec![1, 2]), column(vec![10, 20]), column(vec![7, 8]), column(vec![5, 50])],
    )
    .expect("rows");
    let mut segment = Segment::new("state/1");
    let section = segment.append_batches(&schema, &[rows]).expect("encodes");
    folder.store.put_new("state/1", segment.bytes()).expect("writes");
    let file = StateFile { epoch: 1, worker: 0, full: true, upserts: Some(section), deletes: None, expired_below: Some(5) };
    folder.manifest.state.push(StateEntry {
        operator: "agg".into(),
        table: "groups".into(),
        schema,
        keys: 1,
        expires: true,
        chain: vec![file],
        scalars: Vec::new(),
    });
    folder.epoch(changes(&[]), false);
    assert_eq!(lines(&serve(data.path()), "SELECT * FROM state.p_agg"), ["20,8"]);
}

#[test]
fn nothing_but_queries_is_run() {
    let data = tempfile::tempdir().expect("a folder");
    let _p = Folder::new(data.path(), "p", Vec::new(), 3);
    let serve = serve(data.path());
    for sql in [
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "CREATE TABLE x AS SELECT 1",
        "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
        "COPY t TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
        "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
        "SELECT 1 INTO x",
        "SET datafusion.execution.target_partitions = 1",
        "UPDATE t SET k = 1",
        "SELECT * FROM (DELETE FROM t) AS x",
    ] {
        let message = refusal(&serve, sql);
        assert!(message.contains("read-only") || message.contains("Expected"), "{sql}: {message}");
    }
    assert!(refusal(&serve, "SELECT * FROM '/etc/passwd'").contains("there is no table"));
    assert!(refusal(&serve, "SELECT * FROM t TABLESAMPLE (10 PERCENT)").contains("random()"));
    assert!(refusal(&serve, "SELECT nope FROM t").contains("nope"));
    assert!(refusal(&serve, "SELEC 1").contains("Expected"));
    assert!(refusal(&serve, "SELECT 1; SELECT 2").contains("one statement"));
    assert!(refusal(&serve, "SELECT 1; SELECT 2;").contains("one statement at a time"));
    assert!(!lines(&serve, "EXPLAIN SELECT * FROM t").is_empty());
    assert!(!lines(&serve, "EXPLAIN ANALYZE SELECT * FROM t").is_empty());
}

#[test]
fn a_query_ends_at_its_limits() {
    let data = tempfile::tempdir().expect("a folder");
    let run = |options: QueryOptions, sql: &str| {
        let serve = Serve::new(data.path(), Language::default(), QueryOptions { threads: 2, ..options }).expect("starts");
        block(async { serve.query(sql).await?.collect().await }).map(|_| ()).expect_err(sql)
    };
    let short = QueryOptions { timeout: Some(Duration::from_millis(300)), ..QueryOptions::default() };
    let late = run(short, "SELECT sum(value) FROM generate_series(1, 1000000000000)");
    assert!(late.message().contains("took longer"), "{late}");
    let small = QueryOptions { memory_bytes_max: 1 << 20, spill_bytes_max: 1 << 16, ..QueryOptions::default() };
    let large = run(small, "SELECT v FROM (SELECT value || repeat('x', 1000) AS v FROM generate_series(1, 4000)) ORDER BY v");
    assert!(large.message().contains("memory or disk"), "{large}");
}

#[test]
fn queries_speak_the_pipelines_dialect() {
    let data = tempfile::tempdir().expect("a folder");
    let serve = serve(data.path());
    let times = "(SELECT TIMESTAMP '2025-01-01 00:00:30' AS t UNION ALL SELECT TIMESTAMP '2025-01-01 00:01:00')";
    let tumbled = format!("SELECT window_start, count(*) FROM tumble({times}, t, INTERVAL '1 minute') GROUP BY 1 ORDER BY 1");
    assert_eq!(lines(&serve, &tumbled), ["2025-01-01T00:00:00Z,1", "2025-01-01T00:01:00Z,1"]);
    let session = format!("SELECT window_start, count(*) FROM session({times}, t, INTERVAL '30 seconds') GROUP BY 1");
    assert_eq!(lines(&serve, &session), ["2025-01-01T00:00:30Z,2"]);
    assert_eq!(lines(&serve, "SELECT s['USERAGENT'] AS a, s.useragent AS b FROM (SELECT named_struct('userAgent', 7) AS s)"), ["7,7"]);
    assert_eq!(lines(&serve, "SELECT * FROM generate_series(1, 2)"), ["1", "2"]);
    let wrong = block(async { serve.query("SELECT * FROM hop((SELECT 1 AS n), n, INTERVAL '1 s', INTERVAL '2 s')").await.err() });
    assert_eq!(wrong.expect("refused").message(), "-c:1:36: error: hop: n is no TIMESTAMP");
}

#[test]
fn whole_numbers_do_not_wrap() {
    let data = tempfile::tempdir().expect("a folder");
    let serve = serve(data.path());
    let wraps = [
        "SELECT 9223372036854775807 + 1",
        "SELECT -9223372036854775807 - 2",
        "SELECT value * 9223372036854775807 FROM generate_series(2, 3)",
        "SELECT -(-9223372036854775807 - value) FROM generate_series(1, 1)",
        "SELECT sum(value + 9223372036854775800) FROM generate_series(1, 3)",
        "SELECT count(*) FROM generate_series(1, 3) WHERE value + 9223372036854775805 > 0",
    ];
    for sql in wraps {
        let error = block(async { serve.query(sql).await?.collect().await }).expect_err(sql);
        assert!(error.kind() == Kind::Failed, "{sql}: {error}");
        assert!(["overflow", "past 64 bits"].iter().any(|word| error.message().contains(word)), "{sql}: {error}");
    }
    assert_eq!(lines(&serve, "SELECT 9223372036854775806 + 1 AS a, 2 - 3 AS b, 2 * -3 AS c"), ["9223372036854775807,-1,-6"]);
    assert_eq!(
        lines(&serve, "SELECT a + 1, sum(a) FROM (SELECT value AS a FROM generate_series(1, 3)) GROUP BY a + 1 ORDER BY a + 1"),
        ["2,1", "3,2", "4,3"]
    );
    assert_eq!(lines(&serve, "SELECT sum(v) FROM (SELECT NULL::BIGINT AS v)"), [""]);
}

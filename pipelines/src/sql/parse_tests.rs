//! What declarations become.

use datafusion::arrow::datatypes::{DataType, Field};

use super::super::*;

const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT * FROM s;";

fn source(text: &str) -> Source {
    parse("dir/file.sql", &format!("{text};\n{VIEW}")).expect("parses").sources.remove(0)
}

#[test]
fn columns_may_be_called_anything() {
    let source = source(
        "CREATE TABLE s (key INT, index INT, value INT, timestamp TIMESTAMP, watermark INT, WATERMARK FOR timestamp AS timestamp, primary INT, \
         unique INT, check INT, constraint INT, foreign INT, like INT, date DATE, \"order\" INT, from_ INT, comment INT, fulltext INT, spatial INT) \
         WITH (connector = 'file', path = 'x')",
    );
    let names: Vec<&str> = source.columns.iter().map(|column| column.name.as_str()).collect();
    let expected = [
        "key",
        "index",
        "value",
        "timestamp",
        "watermark",
        "primary",
        "unique",
        "check",
        "constraint",
        "foreign",
        "like",
        "date",
        "order",
        "from_",
        "comment",
        "fulltext",
        "spatial",
    ];
    assert_eq!(names, expected);
    assert_eq!(source.watermark, Some(Watermark { column: "timestamp".into(), delay_us: 0 }));
}

#[test]
fn a_query_reads_columns_called_like_keywords() {
    for word in [
        "key",
        "value",
        "timestamp",
        "date",
        "user",
        "position",
        "interval",
        "struct",
        "trim",
        "top",
        "offset",
        "rank",
        "level",
        "type",
        "row",
    ] {
        let text = format!(
            "CREATE TABLE s ({word} INT, b INT) WITH (connector = 'file', path = 'x');\n\
             CREATE MATERIALIZED VIEW v AS SELECT {word}, b, s.{word} AS c FROM s WHERE {word} > 3;\n\
             CREATE MATERIALIZED VIEW w AS SELECT {word}, max({word} + 1) AS d FROM s GROUP BY {word};"
        );
        let planned = parse("f.sql", &text).and_then(|program| plan(&program));
        assert_eq!(planned.map(|outputs| outputs.len()).map_err(|error| error.to_string()), Ok(2), "{word}");
    }
}

#[test]
fn the_example_of_the_contract_plans() {
    let text = "
        CREATE TABLE clicks (                                   -- a source: one topic, typed
            link_id     BIGINT NOT NULL,
            visitor_id  VARCHAR NOT NULL,
            amount      DECIMAL(18, 2),
            ts          TIMESTAMP(3) NOT NULL,
            meta        STRUCT<ip VARCHAR, ua VARCHAR>,
            WATERMARK FOR ts AS ts - INTERVAL '5 seconds'       -- event time and the delay of its watermark
        ) WITH (connector = 'kafka', topic = 'clicks', format = 'json');
        CREATE VIEW human_clicks AS                             -- a named step; keeps nothing
        SELECT * FROM clicks WHERE coalesce(meta['ua'], '') NOT LIKE '%bot%';
        CREATE MATERIALIZED VIEW clicks_per_minute              -- an output table, kept exactly once
        WITH (lateness = '1 hour') AS
        SELECT window_start, window_end, link_id, count(*) AS clicks, count(DISTINCT visitor_id) AS visitors, sum(amount) AS amount
        FROM tumble(human_clicks, ts, INTERVAL '1 minute')
        GROUP BY window_start, window_end, link_id;";
    let outputs = parse("url_shortener/pipeline.sql", text).and_then(|program| plan(&program)).expect("plans");
    let fields: Vec<(String, DataType)> = outputs
        .iter()
        .flat_map(|output| output.plan.schema().fields())
        .map(|field| (field.name().clone(), field.data_type().clone()))
        .collect();
    let expected = [
        ("window_start", TIMESTAMP),
        ("window_end", TIMESTAMP),
        ("link_id", DataType::Int64),
        ("clicks", DataType::Int64),
        ("visitors", DataType::Int64),
        ("amount", DataType::Decimal128(28, 2)),
    ];
    assert_eq!(fields, expected.map(|(name, data_type)| (name.to_owned(), data_type)));
}

#[test]
fn a_watermark_may_stand_anywhere() {
    for (list, delay_us) in [
        ("WATERMARK FOR ts AS ts - INTERVAL '5 seconds', ts TIMESTAMP NOT NULL, k INT", 5_000_000),
        ("k INT, WATERMARK FOR TS AS Ts - INTERVAL '1' MINUTE, ts TIMESTAMP NOT NULL", 60_000_000),
        ("k INT, ts TIMESTAMP NOT NULL, WATERMARK FOR ts AS ts - INTERVAL '500 ms'", 500_000),
    ] {
        let source = source(&format!("CREATE TABLE s ({list}) WITH (connector = 'file', path = 'x')"));
        assert_eq!(source.watermark, Some(Watermark { column: "ts".into(), delay_us }), "{list}");
        assert_eq!(source.columns.len(), 2);
    }
}

#[test]
fn types_are_exact() {
    let list = |item: DataType| DataType::List(Field::new("item", item, true).into());
    for (sql, data_type) in [
        ("BOOLEAN", DataType::Boolean),
        ("SMALLINT", DataType::Int16),
        ("INT", DataType::Int32),
        ("INTEGER", DataType::Int32),
        ("BIGINT", DataType::Int64),
        ("REAL", DataType::Float32),
        ("FLOAT", DataType::Float32),
        ("DOUBLE", DataType::Float64),
        ("DOUBLE PRECISION", DataType::Float64),
        ("DECIMAL(18, 2)", DataType::Decimal128(18, 2)),
        ("DECIMAL(18)", DataType::Decimal128(18, 0)),
        ("NUMERIC(38, 38)", DataType::Decimal128(38, 38)),
        ("VARCHAR", DataType::Utf8View),
        ("TEXT", DataType::Utf8View),
        ("VARBINARY", DataType::Binary),
        ("BYTES", DataType::Binary),
        ("DATE", DataType::Date32),
        ("TIMESTAMP", TIMESTAMP),
        ("TIMESTAMP(3)", TIMESTAMP),
        ("TIMESTAMP(0) WITHOUT TIME ZONE", TIMESTAMP),
        ("INT[]", list(DataType::Int32)),
        ("ARRAY<VARCHAR>", list(DataType::Utf8View)),
        ("ARRAY<ARRAY<INT>>", list(list(DataType::Int32))),
        (
            "STRUCT<userAgent VARCHAR, at TIMESTAMP(3), deep STRUCT<n INT>>",
            DataType::Struct(
                vec![
                    Field::new("userAgent", DataType::Utf8View, true),
                    Field::new("at", TIMESTAMP, true),
                    Field::new("deep", DataType::Struct(vec![Field::new("n", DataType::Int32, true)].into()), true),
                ]
                .into(),
            ),
        ),
    ] {
        let source = source(&format!("CREATE TABLE s (\"a\" {sql} NOT NULL, b {sql}) WITH (connector = 'file', path = 'x')"));
        let [a, b] = source.columns.as_slice() else { panic!("{sql}: {:?}", source.columns) };
        assert_eq!((&a.data_type, a.nullable), (&data_type, false), "{sql}");
        assert_eq!((&b.data_type, b.nullable), (&data_type, true), "{sql}");
    }
}

#[test]
fn names_fold_and_spellings_stay() {
    let source = source("CREATE TABLE S (dateTime TIMESTAMP(3), \"Quoted\" INT) WITH (CONNECTOR = 'Kafka', topic = 'T', format = 'JSON')");
    let names: Vec<_> =
        source.columns.iter().map(|column| (column.name.as_str(), column.spelled.as_str(), column.timestamp_precision)).collect();
    assert_eq!((source.name.as_str(), names), ("s", vec![("datetime", "dateTime", Some(3)), ("Quoted", "Quoted", None)]));
    assert_eq!(source.options.connector, Connector::Kafka { topic: "T".into(), brokers: None, properties: vec![] });
}

#[test]
fn options_are_read_and_have_defaults() {
    let bare = source("CREATE TABLE s (k INT) WITH (connector = 'kafka', topic = 't', format = 'json')").options;
    let json = Json { paths: vec![], timestamp_unit: TimestampUnit::Milliseconds, unknown_fields_reject: false, coerce: false };
    let connector = Connector::Kafka { topic: "t".into(), brokers: None, properties: vec![] };
    assert_eq!(
        bare,
        SourceOptions {
            connector,
            format: json,
            start: Start::Earliest,
            max_future_us: Some(300_000_000),
            idle_after_us: 1_000_000,
            key_format: KeyFormat::Text,
        }
    );
    let full = source(
        "CREATE TABLE s (userId INT, at TIMESTAMP) WITH (connector = 'kafka', topic = 't', format = 'json', brokers = 'a:1,b:2', \
         kafka.fetch.max.bytes = '1000', 'kafka.client.id' = 'x', json_path = 'userId=$.user.id, at = $.meta.at', timestamp_unit = 'us', \
         unknown_fields = 'reject', coerce = true, start = '2025-01-01T00:00:00Z', max_future = 'unlimited', idle_after = '30 s')",
    )
    .options;
    let properties = vec![("fetch.max.bytes".to_owned(), "1000".to_owned()), ("client.id".to_owned(), "x".to_owned())];
    let paths =
        vec![("userid".to_owned(), vec!["user".to_owned(), "id".to_owned()]), ("at".to_owned(), vec!["meta".to_owned(), "at".to_owned()])];
    assert_eq!(full.connector, Connector::Kafka { topic: "t".into(), brokers: Some("a:1,b:2".into()), properties });
    assert_eq!(full.format, Json { paths, timestamp_unit: TimestampUnit::Microseconds, unknown_fields_reject: true, coerce: true });
    assert_eq!((full.start, full.max_future_us, full.idle_after_us), (Start::At(1_735_689_600_000_000), None, 30_000_000));
    let made = source("CREATE TABLE s (k INT) WITH (connector = 'generator', case = 'url_shortener', count = 1000, seed = '7')").options;
    let connector = Connector::Generator { case: "url_shortener".into(), topic: None, rate: None, count: Some(1000), seed: 7 };
    assert_eq!(made.connector, connector);
}

#[test]
fn outputs_keep_their_options_and_file_order() {
    let program = parse(
        "some/dir/pipeline.sql",
        "-- a comment; with a semicolon\nCREATE MATERIALIZED VIEW b WITH (lateness = '1 hour', emit = 'changes', state_ttl = '1 day')\nAS SELECT DISTINCT k FROM s;\n\
         /* another; */ CREATE VIEW w (x) AS SELECT k FROM b;\nCREATE MATERIALIZED VIEW a AS SELECT x FROM w;\n\
         CREATE TABLE s (k INT, at TIMESTAMP, WATERMARK FOR at AS at) WITH (connector = 'file', path = 'x');;",
    )
    .expect("parses");
    assert_eq!(program.name, "dir");
    let shown: Vec<_> = program.outputs.iter().map(|o| (o.name.as_str(), o.lateness_us, o.emit, o.state_ttl_us, o.at)).collect();
    let at = |line, column| Place { line, column };
    let hour = 3_600_000_000;
    assert_eq!(shown, [("b", hour, Some(Emit::Changes), Some(24 * hour), at(2, 26)), ("a", 0, None, None, at(5, 26))]);
    assert_eq!(program.views.first().map(|view| view.columns.clone()), Some(vec!["x".to_owned()]));
    assert_eq!(plan(&program).expect("plans").len(), 2);
}

#[test]
fn a_pipeline_has_a_name() {
    let text = |set: &str| format!("{set}CREATE TABLE s (k INT) WITH (connector = 'file', path = 'x'); {VIEW}");
    assert_eq!(parse("a/clicks.sql", &text("")).expect("parses").name, "clicks");
    assert_eq!(parse("a/clicks/pipeline.sql", &text("")).expect("parses").name, "clicks");
    assert_eq!(parse("a/x.sql", &text("SET pipeline = 'named_1'; ")).expect("parses").name, "named_1");
    let error = parse("a/My-Clicks.sql", &text("")).expect_err("is refused");
    assert_eq!(error.help.as_deref(), Some("write SET pipeline = 'my_clicks'; as the first statement, or rename the file"));
    for file in ["state.sql", "a/My Pipe.sql", "a/tidemill/pipeline.sql"] {
        let error = parse(file, &text("")).expect_err(file);
        assert!(error.to_string().starts_with(&format!("{file}:1:1: error: the file's name is the pipeline's, but a pipeline")), "{error}");
    }
}

//! A pipeline file as plain data: what it declares, in file order, with the place of every declaration.
//!
//! Always: names are folded as SQL folds them (`spelled` keeps what was written), durations are microseconds, options are complete
//! (defaults filled in). Queries stay syntax here; `plan` turns them into logical plans. Made by `parse`, read by `plan` and by the
//! lowering.

use datafusion::arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::Query;

/// A whole pipeline file.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file as named on the command line; errors begin with it.
    pub file: String,
    /// `SET pipeline`, or the file's stem (the folder's name for `pipeline.sql`).
    pub name: String,
    pub sources: Vec<Source>,
    pub sinks: Vec<Sink>,
    pub views: Vec<View>,
    /// Materialized views and INSERTs, in file order.
    pub outputs: Vec<Output>,
}

/// A `CREATE TABLE` that is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    pub name: String,
    pub columns: Vec<SourceColumn>,
    pub watermark: Option<Watermark>,
    /// Folded column names; empty when the source is a plain stream. With a key it is a changelog: upserts by key, and deletions.
    pub primary_key: Vec<String>,
    pub options: SourceOptions,
    pub at: Place,
}

/// One declared column of a source.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceColumn {
    /// The SQL name.
    pub name: String,
    /// As written in the DDL: the JSON field, unless `json_path` says otherwise.
    pub spelled: String,
    /// Struct fields inside keep their spelling: they are JSON fields too.
    pub data_type: DataType,
    pub nullable: bool,
    /// Of a `TIMESTAMP(p)`: its digits after the second, 0 to 6. Values finer than that do not fit.
    pub timestamp_precision: Option<u8>,
    pub at: Place,
}

/// A `CREATE TABLE` that INSERT writes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Sink {
    pub name: String,
    pub columns: Vec<SourceColumn>,
    /// Folded column names; empty when results go out once, when they are final.
    pub primary_key: Vec<String>,
    pub connector: SinkConnector,
    pub at: Place,
}

/// Where results go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkConnector {
    Kafka {
        topic: String,
        /// `None`: the command line's.
        brokers: Option<String>,
        /// librdkafka properties, from options `kafka.<property>`.
        properties: Vec<(String, String)>,
        /// A record's key is a JSON object also where the PRIMARY KEY has one column.
        key_as_json: bool,
    },
    /// A file an epoch, in this folder.
    File { path: String, parquet: bool },
    /// Counts rows and drops them.
    Blackhole,
}

/// `INSERT INTO sink (columns)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    pub sink: String,
    /// Folded names; empty: by position.
    pub columns: Vec<(String, Place)>,
}

impl Program {
    /// The sink that an output is written to; none for a materialized view.
    pub fn sink_of(&self, output: &Output) -> Option<&Sink> {
        let insert = output.insert.as_ref()?;
        self.sinks.iter().find(|sink| sink.name == insert.sink)
    }
}

/// `WATERMARK FOR column AS column - INTERVAL '…'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watermark {
    /// A declared column, or `_timestamp`.
    pub column: String,
    /// 0 or more.
    pub delay_us: i64,
}

/// The WITH options of a source, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOptions {
    pub connector: Connector,
    pub format: Json,
    pub start: Start,
    /// How far a row's event time may lie ahead of its record's timestamp; `None` is 'unlimited'.
    pub max_future_us: Option<i64>,
    /// A partition whose end was reached this long ago is idle.
    pub idle_after_us: i64,
    /// How the key of a deletion is written, in a changelog.
    pub key_format: KeyFormat,
}

/// How the record key of a deletion names a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyFormat {
    /// The value of the one key column.
    #[default]
    Text,
    /// A JSON object with the key columns, or the one key column's value.
    Json,
}

/// Where records come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connector {
    Kafka {
        topic: String,
        /// `None`: the command line's.
        brokers: Option<String>,
        /// librdkafka properties, from options `kafka.<property>`.
        properties: Vec<(String, String)>,
    },
    /// One JSON object a line, CSV or Parquet; a folder is read file by file in name order.
    File {
        path: String,
        /// 'json', 'csv' or 'parquet'; `None`: by the ending of the path.
        format: Option<String>,
    },
    /// The generator of a case study.
    Generator {
        case: String,
        /// Which of the case's topics; `None` is the source's own name.
        topic: Option<String>,
        /// Events a second; `None` is as fast as they are taken.
        rate: Option<u64>,
        /// How many events; `None` is without end.
        count: Option<u64>,
        seed: u64,
    },
}

/// How a JSON record becomes a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json {
    /// Column name and the path of its value, outermost field first. Columns not named here read the field they are spelled like.
    pub paths: Vec<(String, Vec<String>)>,
    pub timestamp_unit: TimestampUnit,
    /// `unknown_fields = 'reject'`.
    pub unknown_fields_reject: bool,
    /// Strings that hold exactly a number are taken for numbers, numbers for strings.
    pub coerce: bool,
}

/// What a JSON number counts where a timestamp is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampUnit {
    Seconds,
    #[default]
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// Where a pipeline begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    #[default]
    Earliest,
    Latest,
    /// The first record whose timestamp is at or after this, in microseconds since 1970.
    At(i64),
}

/// `CREATE VIEW`: planned into whatever reads it.
#[derive(Debug, Clone)]
pub struct View {
    pub name: String,
    /// `CREATE VIEW v (a, b)`; empty when the query names them.
    pub columns: Vec<String>,
    pub query: Query,
    pub at: Place,
}

/// `CREATE MATERIALIZED VIEW`: an output table. Or `INSERT INTO`: what goes out to a sink.
#[derive(Debug, Clone)]
pub struct Output {
    /// Of an INSERT: its sink's name, for the second one with `_2` behind it, and so on.
    pub name: String,
    /// `None`: a table.
    pub insert: Option<Insert>,
    /// `CREATE MATERIALIZED VIEW v (a, b)`; empty when the query names them.
    pub columns: Vec<String>,
    pub query: Query,
    pub lateness_us: i64,
    /// `None`: final with windows, changes without.
    pub emit: Option<Emit>,
    pub state_ttl_us: Option<i64>,
    pub at: Place,
}

/// When an output publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// When the watermark passes the window's end, and again on a repair.
    Final,
    /// Every epoch.
    Changes,
}

/// A place in the file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

impl Place {
    /// The head of the file: where an error stands that has no better place.
    pub const START: Self = Self { line: 1, column: 1 };
}

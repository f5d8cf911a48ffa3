//! WITH options: their names, what they need, and what is not one.
//!
//! Always: an option nobody knows is refused with the closest known one; a value that can't be read is refused at its place. Adding an
//! option means one line in a list here and one where it is taken. Called by `create` and `parse`.

use chrono::Utc;
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;

use super::duration;
use super::error::{Checked, Complaint};
use super::program::{Connector, Emit, Json, KeyFormat, Place, SinkConnector, SourceColumn, SourceOptions, Start, TimestampUnit};

/// One `name = 'value'`.
#[derive(Debug, Clone)]
pub(super) struct SqlOption {
    pub name: String,
    pub at: Place,
    pub value: String,
    pub value_at: Place,
}

/// The options of one statement; each is taken once.
#[derive(Debug, Clone)]
pub(super) struct Options {
    options: Vec<SqlOption>,
    /// Where a missing option is missing.
    pub at: Place,
}

const KAFKA: &[&str] = &["topic", "brokers"];
const FILE: &[&str] = &["path"];
const GENERATOR: &[&str] = &["case", "topic", "rate", "count", "seed"];
const SOURCE: &[&str] =
    &["connector", "format", "json_path", "timestamp_unit", "unknown_fields", "coerce", "start", "max_future", "idle_after", "key_format"];
const SINK: &[&str] = &["connector", "format"];
const KAFKA_SINK: &[&str] = &["topic", "brokers", "key_format"];
const OUTPUT: &[&str] = &["lateness", "emit", "state_ttl"];

/// Options of other systems and ours for them.
const FOREIGN: &[(&str, &str)] = &[
    ("properties.bootstrap.servers", "write brokers = 'host:9092', or give --brokers"),
    ("properties.bootstrap.server", "write brokers = 'host:9092', or give --brokers"),
    ("bootstrap.servers", "write brokers = 'host:9092', or give --brokers"),
    ("bootstrap_servers", "write brokers = 'host:9092', or give --brokers"),
    ("scan.startup.mode", "write start = 'earliest' or 'latest'"),
    ("scan.startup.timestamp.millis", "write start = '2025-01-01T00:00:00Z'"),
    ("auto.offset.reset", "write start = 'earliest' or 'latest'"),
    ("properties.group.id", "leave it out: offsets are kept with the tables"),
    ("group_id", "leave it out: offsets are kept with the tables"),
    ("value.format", "write format = 'json'"),
    ("value_format", "write format = 'json'"),
    ("json.ignore-parse-errors", "leave it out: bad records go to dead_letters"),
    ("allowed_lateness", "write lateness = '1 hour'"),
    ("ttl", "write state_ttl = '1 day'"),
    ("kafka_topic", "write topic = 'clicks'"),
    ("type", "leave it out: a table is a source, unless INSERT INTO names it"),
    ("event_time_field", "declare the time in the columns: WATERMARK FOR ts AS ts - INTERVAL '5 seconds'"),
    ("watermark_field", "declare the time in the columns: WATERMARK FOR ts AS ts - INTERVAL '5 seconds'"),
    ("timestamp", "declare the time in the columns: WATERMARK FOR ts AS ts - INTERVAL '5 seconds'"),
    ("bad_data", "leave it out: bad records go to dead_letters"),
    ("source.offset", "write start = 'earliest' or 'latest'"),
    ("source.group_id", "leave it out: offsets are kept with the tables"),
    ("partitions", "leave it out: a topic brings its partitions along"),
];

const DEFAULT_MAX_FUTURE_US: i64 = 300_000_000;
const DEFAULT_IDLE_AFTER_US: i64 = 1_000_000;

impl Options {
    pub fn new(options: Vec<SqlOption>, at: Place) -> Checked<Self> {
        for (index, option) in options.iter().enumerate() {
            if options.iter().take(index).any(|other| other.name == option.name) {
                return Err(Complaint::new(option.at, format!("the option {} is given twice", option.name)));
            }
        }
        Ok(Self { options, at })
    }

    /// The place of the first option.
    pub fn first(&self) -> Option<Place> {
        self.options.first().map(|option| option.at)
    }

    fn take(&mut self, name: &str) -> Option<SqlOption> {
        let index = self.options.iter().position(|option| option.name == name)?;
        Some(self.options.remove(index))
    }

    fn need(&mut self, name: &str, example: &str) -> Checked<SqlOption> {
        let missing = Complaint::new(self.at, format!("the option {name} is missing")).help(format!("write WITH (…, {name} = {example})"));
        let option = self.take(name).ok_or(missing)?;
        if option.value.is_empty() {
            return Err(Complaint::new(option.value_at, format!("the option {name} is empty")).help(format!("write {name} = {example}")));
        }
        Ok(option)
    }

    /// Refuses what is left over.
    fn done(self, known: &[&[&str]], of: &str) -> Checked<()> {
        let Some(option) = self.options.first() else { return Ok(()) };
        if let Some((_, help)) = FOREIGN.iter().find(|(name, _)| *name == option.name) {
            return Err(Complaint::new(option.at, format!("there is no option {} {of}", option.name)).help(*help));
        }
        let known: Vec<&str> = known.iter().flat_map(|names| names.iter().copied()).collect();
        let complaint = Complaint::new(option.at, format!("there is no option {} {of}; there are {}", option.name, known.join(", ")));
        Err(complaint.suggest(&option.name, known))
    }

    fn duration(&mut self, name: &str) -> Checked<Option<i64>> {
        let Some(option) = self.take(name) else { return Ok(None) };
        let us = duration::parse(&option.value).map_err(|message| Complaint::new(option.value_at, format!("{name}: {message}")))?;
        if us < 0 {
            return Err(Complaint::new(option.value_at, format!("{name} can't be negative")));
        }
        Ok(Some(us))
    }

    fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Checked<Option<T>> {
        let Some(option) = self.take(name) else { return Ok(None) };
        match choices.iter().find(|(word, _)| option.value.eq_ignore_ascii_case(word)) {
            Some((_, choice)) => Ok(Some(*choice)),
            None => {
                let words: Vec<String> = choices.iter().map(|(word, _)| format!("'{word}'")).collect();
                let message = format!("{name} is one of {}, not '{}'", words.join(", "), option.value);
                Err(Complaint::new(option.value_at, message).suggest(&option.value, choices.iter().map(|(word, _)| *word)))
            }
        }
    }

    fn number(&mut self, name: &str) -> Checked<Option<u64>> {
        let Some(option) = self.take(name) else { return Ok(None) };
        let wrong = || Complaint::new(option.value_at, format!("{name} is a whole number of 0 or more, not '{}'", option.value));
        option.value.replace('_', "").parse().map(Some).map_err(|_| wrong())
    }
}

fn file(options: &mut Options) -> Checked<Connector> {
    let path = options.need("path", "'events.ndjson'")?.value;
    let known = [("json", "json"), ("csv", "csv"), ("parquet", "parquet")];
    let format = options.choice("format", &known)?.map(str::to_owned);
    Ok(Connector::File { path, format })
}

/// The options of a source with `keys` columns in its PRIMARY KEY, with defaults filled in.
pub(super) fn source(mut options: Options, columns: &[SourceColumn], keys: usize) -> Checked<SourceOptions> {
    let named = options.need("connector", "'kafka'")?;
    let (connector, own) = match named.value.to_lowercase().as_str() {
        "kafka" => (kafka(&mut options)?, KAFKA),
        "file" => (file(&mut options)?, FILE),
        "generator" => (generator(&mut options)?, GENERATOR),
        _ => {
            let complaint =
                Complaint::new(named.value_at, format!("there is no connector '{}'; there are 'kafka', 'file', 'generator'", named.value));
            return Err(complaint.suggest(&named.value, ["kafka", "file", "generator"]));
        }
    };
    let format = options.take("format");
    match format {
        Some(format) if !format.value.eq_ignore_ascii_case("json") => {
            let complaint = Complaint::new(format.value_at, format!("there is no format '{}'; there is 'json'", format.value));
            return Err(match format.value.to_lowercase().as_str() {
                "csv" | "parquet" => complaint.help("csv and parquet are read from files: connector = 'file'"),
                _ => complaint,
            });
        }
        None if own == KAFKA => {
            options.need("format", "'json'")?;
        }
        _ => {}
    }
    let key_format = key_format(&mut options, keys, own == FILE)?;
    let units = [
        ("s", TimestampUnit::Seconds),
        ("ms", TimestampUnit::Milliseconds),
        ("us", TimestampUnit::Microseconds),
        ("ns", TimestampUnit::Nanoseconds),
    ];
    let format = Json {
        paths: paths(&mut options, columns)?,
        timestamp_unit: options.choice("timestamp_unit", &units)?.unwrap_or_default(),
        unknown_fields_reject: options.choice("unknown_fields", &[("ignore", false), ("reject", true)])?.unwrap_or(false),
        coerce: options.choice("coerce", &[("true", true), ("false", false)])?.unwrap_or(false),
    };
    let start = start(&mut options)?;
    let unlimited = options.options.iter().position(|option| option.name == "max_future" && option.value.eq_ignore_ascii_case("unlimited"));
    let max_future_us = match unlimited {
        Some(index) => {
            options.options.remove(index);
            None
        }
        None => Some(options.duration("max_future")?.unwrap_or(DEFAULT_MAX_FUTURE_US)),
    };
    let idle_after_us = options.duration("idle_after")?.unwrap_or(DEFAULT_IDLE_AFTER_US);
    options.done(&[SOURCE, own], "of a source")?;
    Ok(SourceOptions { connector, format, start, max_future_us, idle_after_us, key_format })
}

/// How the keys of deletions are written; the keys of files' records aren't: they have none.
fn key_format(options: &mut Options, keys: usize, file: bool) -> Checked<KeyFormat> {
    let given = options.options.iter().find(|option| option.name == "key_format").map(|option| (option.at, option.value_at));
    let chosen = options.choice("key_format", &[("text", KeyFormat::Text), ("json", KeyFormat::Json)])?;
    match given {
        Some((at, _)) if keys == 0 => return Err(Complaint::new(at, "key_format is for a source with a PRIMARY KEY")),
        Some((at, _)) if file => {
            return Err(Complaint::new(at, "the records of a file have no key, so none of them deletes").help("leave key_format out"));
        }
        _ => {}
    }
    let format = chosen.unwrap_or_default();
    if keys > 1 && format == KeyFormat::Text && !file {
        let message = format!("key_format = 'text' reads a key of one column; this PRIMARY KEY has {keys}");
        return Err(Complaint::new(given.map_or(options.at, |(_, value_at)| value_at), message).help("write key_format = 'json'"));
    }
    Ok(format)
}

/// The options of a sink whose PRIMARY KEY has this many columns.
pub(super) fn sink(mut options: Options, keys: usize) -> Checked<SinkConnector> {
    let known = ["kafka", "file", "blackhole"];
    let named = options.need("connector", "'kafka'")?;
    let connector = named.value.to_lowercase();
    if !known.contains(&connector.as_str()) {
        let complaint =
            Complaint::new(named.value_at, format!("no sink has a connector '{}'; there are 'kafka', 'file', 'blackhole'", named.value));
        return Err(complaint.suggest(&named.value, known));
    }
    let format = match connector.as_str() {
        "kafka" => Some(options.need("format", "'json'")?),
        _ => options.take("format"),
    };
    let wanted: &[&str] = if connector == "file" { &["json", "parquet"] } else { &["json"] };
    if let Some(format) = format.as_ref().filter(|format| !wanted.contains(&format.value.to_lowercase().as_str())) {
        let shown: Vec<String> = wanted.iter().map(|format| format!("'{format}'")).collect();
        let message = format!("format is one of {} here, not '{}'", shown.join(", "), format.value);
        return Err(Complaint::new(format.value_at, message).suggest(&format.value, wanted.iter().copied()));
    }
    let (connector, own): (SinkConnector, &[&str]) = match connector.as_str() {
        "kafka" => {
            let key = options.take("key_format");
            let (topic, brokers, properties) = topic(&mut options, SINKS_OWN, "use the option brokers")?;
            (SinkConnector::Kafka { topic, brokers, properties, key_as_json: key_as_json(key, keys)? }, KAFKA_SINK)
        }
        "file" => {
            let path = options.need("path", "'results'")?.value;
            (SinkConnector::File { path, parquet: format.is_some_and(|format| format.value.eq_ignore_ascii_case("parquet")) }, FILE)
        }
        _ => (SinkConnector::Blackhole, &[]),
    };
    options.done(&[SINK, own], "of a sink")?;
    Ok(connector)
}

/// How the PRIMARY KEY is written as a record's key.
fn key_as_json(option: Option<SqlOption>, keys: usize) -> Checked<bool> {
    let Some(option) = option else { return Ok(keys > 1) };
    if keys == 0 {
        return Err(Complaint::new(option.at, "key_format is for a sink with a PRIMARY KEY"));
    }
    match option.value.to_lowercase().as_str() {
        "json" => Ok(true),
        "text" if keys == 1 => Ok(false),
        "text" => Err(Complaint::new(option.value_at, "a PRIMARY KEY of several columns is no text").help("write key_format = 'json'")),
        _ => Err(Complaint::new(option.value_at, format!("key_format is one of 'text', 'json', not '{}'", option.value))),
    }
}

/// librdkafka's properties that decide what is delivered, and when.
const SINKS_OWN: &[&str] =
    &["transactional.id", "enable.idempotence", "acks", "request.required.acks", "isolation.level", "bootstrap.servers"];

fn kafka(options: &mut Options) -> Checked<Connector> {
    // These decide what is read and what counts as read; they are the engine's.
    const OURS: &[&str] =
        &["group.id", "enable.auto.commit", "enable.auto.offset.store", "isolation.level", "auto.offset.reset", "bootstrap.servers"];
    let (topic, brokers, properties) = topic(options, OURS, "use the options brokers and start")?;
    Ok(Connector::Kafka { topic, brokers, properties })
}

/// A topic, its brokers and librdkafka's properties but for those of ours.
#[allow(clippy::type_complexity, reason = "taken apart where it is called")]
fn topic(options: &mut Options, ours: &[&str], instead: &str) -> Checked<(String, Option<String>, Vec<(String, String)>)> {
    let topic = options.need("topic", "'clicks'")?.value;
    let brokers = options.take("brokers").map(|option| option.value);
    let mut properties = Vec::new();
    while let Some(index) = options.options.iter().position(|option| option.name.starts_with("kafka.")) {
        let option = options.options.remove(index);
        let name = option.name.trim_start_matches("kafka.").to_owned();
        if ours.contains(&name.as_str()) {
            return Err(Complaint::new(option.at, format!("{name} is set by Tidemill")).help(instead));
        }
        properties.push((name, option.value));
    }
    Ok((topic, brokers, properties))
}

fn generator(options: &mut Options) -> Checked<Connector> {
    Ok(Connector::Generator {
        case: options.need("case", "'url_shortener'")?.value,
        topic: options.take("topic").map(|option| option.value),
        rate: options.number("rate")?,
        count: options.number("count")?,
        seed: options.number("seed")?.unwrap_or(0),
    })
}

fn start(options: &mut Options) -> Checked<Start> {
    let Some(option) = options.take("start") else { return Ok(Start::default()) };
    match option.value.to_lowercase().as_str() {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => match string_to_datetime(&Utc, &option.value) {
            Ok(time) => Ok(Start::At(time.timestamp_micros())),
            Err(_) => {
                let message =
                    format!("start is 'earliest', 'latest' or a timestamp such as '2025-01-01T00:00:00Z', not '{}'", option.value);
                Err(Complaint::new(option.value_at, message).suggest(&option.value, ["earliest", "latest"]))
            }
        },
    }
}

/// `json_path = 'a=$.x.y, b=$.z'`.
fn paths(options: &mut Options, columns: &[SourceColumn]) -> Checked<Vec<(String, Vec<String>)>> {
    let Some(option) = options.take("json_path") else { return Ok(Vec::new()) };
    let wrong = |message: String| Complaint::new(option.value_at, message).help("write json_path = 'column=$.field.inner, other=$.field'");
    let mut paths: Vec<(String, Vec<String>)> = Vec::new();
    for part in option.value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (column, path) = part.split_once('=').ok_or_else(|| wrong(format!("json_path: '{part}' is not column=$.path")))?;
        let (column, path) = (column.trim(), path.trim());
        let Some(found) =
            columns.iter().find(|each| each.spelled == column).or_else(|| columns.iter().find(|each| each.name == column.to_lowercase()))
        else {
            let complaint = Complaint::new(option.value_at, format!("json_path: there is no column {column}"));
            return Err(complaint.suggest(column, columns.iter().map(|each| each.name.as_str())));
        };
        let fields: Option<Vec<String>> = path.strip_prefix("$.").map(|rest| rest.split('.').map(str::to_owned).collect());
        let fields =
            fields.filter(|fields| fields.iter().all(|field| !field.is_empty() && !field.contains(['[', ']', '*', '?', '(', ')', '$'])));
        let fields = fields.ok_or_else(|| wrong(format!("json_path: '{path}' is not a path of fields such as $.a.b")))?;
        if paths.iter().any(|(other, _)| *other == found.name) {
            return Err(wrong(format!("json_path: {column} is given twice")));
        }
        paths.push((found.name.clone(), fields));
    }
    Ok(paths)
}

/// The options of an output: lateness, emit, state_ttl.
pub(super) fn output(mut options: Options) -> Checked<(i64, Option<Emit>, Option<i64>)> {
    let lateness_us = options.duration("lateness")?.unwrap_or(0);
    let emit = options.choice("emit", &[("final", Emit::Final), ("changes", Emit::Changes)])?;
    let ttl = options.options.iter().find(|option| option.name == "state_ttl").map(|option| option.value_at);
    let state_ttl_us = options.duration("state_ttl")?;
    if let (Some(0), Some(at)) = (state_ttl_us, ttl) {
        return Err(Complaint::new(at, "state_ttl is longer than nothing").help("write state_ttl = '1 day'"));
    }
    options.done(&[OUTPUT], "of a materialized view")?;
    // It bounds what has no windows, and that is published each epoch.
    let emit = emit.or(state_ttl_us.map(|_| Emit::Changes));
    Ok((lateness_us, emit, state_ttl_us))
}

//! The planner's way to the connectors: a declared source becomes a reader, and a place to begin.
//!
//! Always: what is asked of a broker here is asked before anything is written; a topic that is gone or made anew, or whose unread
//! records were deleted, is refused with the choice named.

use std::path::Path;
use std::sync::Arc;

use tidemill_connectors::file::{FileConfig, FileFormat, file_source};
use tidemill_connectors::format::{DecodeConfig, Hidden};
use tidemill_connectors::generator::Settings;
use tidemill_connectors::generator_source::{GeneratorConfig, generator_source};
use tidemill_connectors::json::{Column, Options, TimeUnitOption};
use tidemill_connectors::kafka::{Admin, BUDGET_BYTES, KafkaConfig, KafkaStatus, WAIT_MS, kafka_source};
use tidemill_connectors::tombstone::{Changelog, KeyFormat};
use tidemill_engine::epoch::manifest::SourceEntry;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::source::Position;

use crate::lower::{Opened, Opener};
use crate::sql::{self, Connector, Source, Start, TimestampUnit};

/// Partitions of a generated topic.
const GENERATED_PARTITIONS: u32 = 4;

/// How long a look at a running topic's partitions may take.
const LOOK_MS_MAX: u64 = 2_000;

/// What all sources of a run share.
#[derive(Clone)]
pub struct Connections {
    /// `--brokers`.
    pub brokers: Option<String>,
    /// `--kafka key=value`.
    pub properties: Vec<(String, String)>,
    /// The pipeline's name, for the consumer group.
    pub pipeline: String,
    /// Readers of one source.
    pub workers: usize,
    /// How the brokers are, for whoever watches.
    pub status: Arc<KafkaStatus>,
}

impl Connections {
    /// Connections of a pipeline.
    pub fn new(brokers: Option<String>, properties: Vec<(String, String)>, pipeline: &str, workers: usize) -> Self {
        let status = KafkaStatus::new(brokers.as_deref().unwrap_or("no broker"));
        Self { brokers, properties, pipeline: pipeline.to_owned(), workers, status }
    }

    fn kafka(&self, source: &Source) -> Result<Option<KafkaConfig>> {
        let Connector::Kafka { topic, brokers, properties } = &source.options.connector else { return Ok(None) };
        let brokers = brokers.clone().or_else(|| self.brokers.clone());
        let brokers = brokers.ok_or_else(|| {
            Error::refused(format!("source {} reads Kafka, but no broker is named: give --brokers HOST:PORT", source.name))
        })?;
        let mut all = self.properties.clone();
        all.extend(properties.iter().cloned());
        let group = format!("tidemill-{}", self.pipeline);
        Ok(Some(KafkaConfig { brokers, topic: topic.clone(), properties: all, group, budget_bytes: BUDGET_BYTES / self.workers.max(1) }))
    }

    fn admin(&self, config: &KafkaConfig) -> Result<Admin> {
        Admin::new(&config.brokers, &config.properties, WAIT_MS)
    }

    /// Where a source begins, or goes on: `known` is what the newest epoch says. Topics may have grown partitions meanwhile.
    pub fn positions(
        &self,
        source: &Source,
        reading: u32,
        known: Option<&SourceEntry>,
        on_wait: &mut dyn FnMut(&str),
    ) -> Result<SourceEntry> {
        let (topic, topic_id, begin) = self.begin(source, on_wait)?;
        let Some(known) = known else {
            let partitions = begin.starts.iter().map(|(partition, at)| Position::new(*partition, *at)).collect();
            return Ok(SourceEntry { name: source.name.clone(), reading, topic, topic_id, partitions });
        };
        if known.topic_id.is_some() && topic_id.is_some() && known.topic_id != topic_id {
            return Err(Error::refused(format!(
                "topic {topic} was deleted and made anew since the last epoch: its offsets mean other records now; start afresh with --reset, or name the pipeline anew (SET pipeline)"
            )));
        }
        let mut entry = SourceEntry { topic_id: topic_id.or_else(|| known.topic_id.clone()), ..known.clone() };
        for (partition, first) in &begin.earliest {
            match entry.partitions.iter().find(|position| position.partition == *partition) {
                Some(position) if position.next < *first => {
                    return Err(Error::failed(format!(
                        "topic {topic}, partition {partition}: records {} to {} were deleted (retention) before they were read; start afresh with --reset, which reads what is left",
                        position.next,
                        first - 1
                    )));
                }
                Some(_) => {}
                None => entry.partitions.push(Position::new(*partition, *first)),
            }
        }
        Ok(entry)
    }

    fn begin(&self, source: &Source, on_wait: &mut dyn FnMut(&str)) -> Result<(String, Option<String>, Begin)> {
        if let Some(config) = self.kafka(source)? {
            let admin = self.admin(&config)?;
            let info = admin.topic(&config.topic, on_wait)?;
            let partitions: Vec<i32> = (0..info.partitions).collect();
            let earliest = admin.begin_offsets(&config.topic, &partitions, on_wait)?;
            let starts = match source.options.start {
                Start::Earliest => earliest.clone(),
                Start::Latest => admin.end_offsets(&config.topic, &partitions, on_wait)?,
                Start::At(us) => admin.offsets_for_time(&config.topic, &partitions, us.div_euclid(1000), on_wait)?,
            };
            return Ok((config.topic, info.topic_id, Begin { earliest, starts }));
        }
        let (topic, partitions) = match &source.options.connector {
            Connector::File { path, .. } => (path.clone(), FileConfig::find(Path::new(path), file_format(source)?)?.partitions() as i32),
            _ => (generated(source)?.topic, GENERATED_PARTITIONS as i32),
        };
        let starts: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, 0)).collect();
        Ok((topic, None, Begin { earliest: starts.clone(), starts }))
    }

    /// Why the log can't be read again from where `entry` began to where it stands; `None` if it can.
    pub fn lost(&self, source: &Source, entry: &SourceEntry, on_wait: &mut dyn FnMut(&str)) -> Result<Option<String>> {
        let (topic, topic_id, begin) = self.begin(source, on_wait)?;
        if entry.topic_id.is_some() && topic_id.is_some() && entry.topic_id != topic_id {
            return Ok(Some(format!("topic {topic} was deleted and made anew")));
        }
        for position in &entry.partitions {
            match begin.earliest.iter().find(|(partition, _)| *partition == position.partition) {
                None => return Ok(Some(format!("{topic} has no partition {} any more", position.partition))),
                Some((partition, first)) if position.start < *first && position.start < position.next => {
                    return Ok(Some(format!("{topic}, partition {partition}: records {} to {} are gone", position.start, first - 1)));
                }
                Some(_) => {}
            }
        }
        if self.kafka(source)?.is_some() {
            let ends = self.ends(source, entry, on_wait)?;
            for (partition, end) in ends {
                if let Some(position) = entry.partitions.iter().find(|each| each.partition == partition && each.next > end) {
                    return Ok(Some(format!("{topic}, partition {partition} ends at {end}, and the run has read to {}", position.next)));
                }
            }
        }
        Ok(None)
    }

    /// How many partitions the topic of a source has now; `None` if it is no topic or nobody answers in time.
    pub fn partitions(&self, source: &Source) -> Option<usize> {
        let config = self.kafka(source).ok().flatten()?;
        let admin = Admin::new(&config.brokers, &config.properties, LOOK_MS_MAX).ok()?;
        usize::try_from(admin.topic(&config.topic, &mut |_| ()).ok()?.partitions).ok()
    }

    /// Where a source ends now. A generator without a count has no end.
    pub fn ends(&self, source: &Source, entry: &SourceEntry, on_wait: &mut dyn FnMut(&str)) -> Result<Vec<(i32, i64)>> {
        if let Some(config) = self.kafka(source)? {
            let partitions: Vec<i32> = entry.partitions.iter().map(|position| position.partition).collect();
            return self.admin(&config)?.end_offsets(&config.topic, &partitions, on_wait);
        }
        match &source.options.connector {
            Connector::File { path, .. } => FileConfig::find(Path::new(path), file_format(source)?)?.end_offsets(),
            _ => generated(source)?.end_offsets()?.ok_or_else(|| {
                Error::refused(format!(
                    "source {} generates records without end: give it count = '…' to run it with --bounded",
                    source.name
                ))
            }),
        }
    }
}

struct Begin {
    earliest: Vec<(i32, i64)>,
    starts: Vec<(i32, i64)>,
}

impl Opener for Connections {
    fn open(&self, source: &Source, reading: u32, columns: &[String], hidden: &[String]) -> Result<Opened> {
        let decode = decode(source, columns, hidden);
        let schema = tidemill_connectors::format::RecordDecoder::new("", &decode)?.schema();
        if let Some(mut config) = self.kafka(source)? {
            if reading > 0 {
                // Lag tools see each reading by itself.
                config.group = format!("{}-{reading}", config.group);
            }
            return Ok(Opened { topic: config.topic.clone(), schema, open: kafka_source(config, decode, Arc::clone(&self.status))? });
        }
        match &source.options.connector {
            Connector::File { path, .. } => Ok(Opened {
                topic: path.clone(),
                schema,
                open: file_source(FileConfig::find(Path::new(path), file_format(source)?)?, decode)?,
            }),
            _ => {
                let config = generated(source)?;
                Ok(Opened { topic: config.topic.clone(), schema, open: generator_source(config, decode)? })
            }
        }
    }
}

fn file_format(source: &Source) -> Result<FileFormat> {
    let Connector::File { path, format } = &source.options.connector else { return Ok(FileFormat::Json) };
    if let Some(format) = format {
        return FileFormat::parse(format);
    }
    match Path::new(path).extension().and_then(|ending| ending.to_str()) {
        Some("csv") => FileFormat::parse("csv"),
        Some("parquet") => FileFormat::parse("parquet"),
        _ => FileFormat::parse("json"),
    }
}

fn generated(source: &Source) -> Result<GeneratorConfig> {
    let Connector::Generator { case, topic, rate, count, seed } = &source.options.connector else {
        return Err(Error::failed(format!("source {} has no connector", source.name)));
    };
    let known = tidemill_connectors::generator::find(case);
    let settings = Settings {
        seed: *seed,
        partitions: GENERATED_PARTITIONS,
        rate_per_s: rate.map_or_else(|| known.map_or(1_000.0, |case| case.demo_rate_per_s), |rate| rate as f64),
        ..Settings::default()
    };
    let topic = topic
        .clone()
        .or_else(|| known.and_then(|case| case.topics.first().map(|topic| (*topic).to_owned())))
        .unwrap_or_else(|| source.name.clone());
    Ok(GeneratorConfig { case: case.clone(), topic, settings, count: *count })
}

/// How records of `source` become the declared columns named in `columns` and the hidden ones in `hidden`.
pub fn decode(source: &Source, columns: &[String], hidden: &[String]) -> DecodeConfig {
    let format = &source.options.format;
    let unit = match format.timestamp_unit {
        TimestampUnit::Seconds => TimeUnitOption::S,
        TimestampUnit::Milliseconds => TimeUnitOption::Ms,
        TimestampUnit::Microseconds => TimeUnitOption::Us,
        TimestampUnit::Nanoseconds => TimeUnitOption::Ns,
    };
    let path = |name: &str, spelled: &str| {
        format.paths.iter().find(|(column, _)| column == name).map_or_else(|| vec![spelled.to_owned()], |(_, path)| path.clone())
    };
    let declared = source.columns.iter().map(|column| Column {
        name: column.name.clone(),
        path: path(&column.name, &column.spelled),
        data_type: column.data_type.clone(),
        nullable: column.nullable,
        unit,
        build: columns.contains(&column.name),
    });
    let digits = source.columns.iter().enumerate();
    DecodeConfig {
        columns: declared.collect(),
        timestamp_digits: digits.filter_map(|(index, column)| column.timestamp_precision.map(|digits| (index, digits))).collect(),
        options: Options { coerce: format.coerce, reject_unknown: format.unknown_fields_reject, ..Options::default() },
        hidden: Hidden::ALL.into_iter().filter(|each| hidden.iter().any(|name| name == each.name())).collect(),
        changelog: changelog(source),
    }
}

/// How deletions are read, of a source with a PRIMARY KEY.
fn changelog(source: &Source) -> Option<Changelog> {
    let place = |name: &String| source.columns.iter().position(|column| column.name == *name);
    let key = source.primary_key.iter().filter_map(|name| place(name).map(|index| (index, source.columns[index].spelled.clone())));
    let key: Vec<_> = key.collect();
    let format = match source.options.key_format {
        sql::KeyFormat::Text => KeyFormat::Text,
        sql::KeyFormat::Json => KeyFormat::Json,
    };
    let time = source.watermark.as_ref().and_then(|watermark| place(&watermark.column));
    (!key.is_empty()).then_some(Changelog { key, format, time })
}

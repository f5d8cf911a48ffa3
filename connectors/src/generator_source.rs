//! A source without a broker: one topic of a case study's workload, made while it is read.
//!
//! Always: the records are those of the workload and the seed, whoever reads them; partition p is those that the workload gives to p, its
//! offsets count them from 0. Every partition runs the workload for itself and passes over the others' records, so nothing is kept for a
//! partition that is not polled. To resume at an offset it runs up to it. Not here: the workloads (`generator`).

use std::sync::Arc;

use tidemill_engine::error::{Error, Result};
use tidemill_engine::rows::RawRecord;
use tidemill_engine::source::{Limits, Polled, Source};

use crate::OpenSource;
use crate::arena::Arena;
use crate::format::{DecodeConfig, RecordDecoder};
use crate::generator::{self, Case, Generated, Settings, Workload};

/// Records of the workload that one poll looks at, for each it may take.
const LOOKED_AT_PER_ROW: usize = 16;

/// Which workload, and how much of it.
#[derive(Clone)]
pub struct GeneratorConfig {
    /// The case's name, as `generator::find` knows it.
    pub case: String,
    /// One of its topics.
    pub topic: String,
    /// What its records depend on.
    pub settings: Settings,
    /// It ends after so many records, those of all topics and partitions counted; `None`: never.
    pub count: Option<u64>,
}

impl GeneratorConfig {
    /// Where each partition ends; `None` without a count. (Makes all the records once.)
    pub fn end_offsets(&self) -> Result<Option<Vec<(i32, i64)>>> {
        let Some(count) = self.count else { return Ok(None) };
        let mut workload = (self.case()?.make)(&self.settings);
        let mut ends = vec![0; self.settings.partitions.max(1) as usize];
        let mut record = Generated::default();
        for _ in 0..count {
            workload.next_into(&mut record);
            if record.topic == self.topic
                && let Some(end) = ends.get_mut(record.partition as usize)
            {
                *end += 1;
            }
        }
        Ok(Some((0..).zip(ends).collect()))
    }

    fn case(&self) -> Result<&'static Case> {
        let case = generator::find(&self.case).ok_or_else(|| {
            let names: Vec<_> = generator::CASES.iter().map(|case| case.name).collect();
            Error::refused(format!("no case {:?} to generate: there is {}", self.case, names.join(", ")))
        })?;
        if case.topics.contains(&self.topic.as_str()) {
            return Ok(case);
        }
        Err(Error::refused(format!("case {} has no topic {:?}: it has {}", case.name, self.topic, case.topics.join(", "))))
    }
}

/// What opens the readers. Refused: a case or a topic nobody knows.
pub fn generator_source(config: GeneratorConfig, decode: DecodeConfig) -> Result<OpenSource> {
    let case = config.case()?;
    Ok(Arc::new(move || Ok(Box::new(GeneratorSource::new(case, config.clone(), &decode)?))))
}

/// One reader.
pub struct GeneratorSource {
    case: &'static Case,
    config: GeneratorConfig,
    decoder: RecordDecoder,
    partitions: Vec<Running>,
}

/// One partition's run of the workload.
struct Running {
    id: i32,
    workload: Box<dyn Workload>,
    record: Generated,
    /// Records of the workload seen.
    seen: u64,
    /// The offset of this partition's next record.
    at: i64,
    /// The offset to go on at.
    next: i64,
}

impl GeneratorSource {
    fn new(case: &'static Case, config: GeneratorConfig, decode: &DecodeConfig) -> Result<Self> {
        let decoder = RecordDecoder::new(&config.topic, decode)?;
        Ok(Self { case, config, decoder, partitions: Vec::new() })
    }
}

impl Source for GeneratorSource {
    fn assign(&mut self, partitions: &[(i32, i64)]) -> Result<()> {
        let run = |(id, next): &(i32, i64)| Running {
            id: *id,
            workload: (self.case.make)(&self.config.settings),
            record: Generated::default(),
            seen: 0,
            at: 0,
            next: *next,
        };
        self.partitions = partitions.iter().map(run).collect();
        Ok(())
    }

    fn poll(&mut self, partition: i32, limits: Limits) -> Result<Polled> {
        let not_ours = || Error::failed(format!("generator: partition {partition} is not assigned to this reader"));
        let from = self.partitions.iter_mut().find(|each| each.id == partition).ok_or_else(not_ours)?;
        let count = self.config.count.unwrap_or(u64::MAX);
        let mut looked_at = limits.rows_max.saturating_mul(LOOKED_AT_PER_ROW);
        let mut raw = Arena::default();
        self.decoder.begin(partition);
        while self.decoder.records() < limits.rows_max && self.decoder.bytes() < limits.bytes_max && from.next < limits.end {
            if looked_at == 0 || from.seen == count {
                break;
            }
            looked_at -= 1;
            from.seen += 1;
            from.workload.next_into(&mut from.record);
            if from.record.topic != self.config.topic || i64::from(from.record.partition) != i64::from(partition) {
                continue;
            }
            let offset = from.at;
            from.at += 1;
            if offset < from.next {
                continue;
            }
            let made = &from.record;
            let record = RawRecord { key: made.key.as_deref(), payload: made.value.as_deref(), timestamp_ms: Some(made.timestamp_ms) };
            self.decoder.push(offset, record);
            raw.push(offset, record);
            from.next = from.at;
        }
        let at_end = from.seen == count;
        let read = if self.decoder.records() > 0 { Some(self.decoder.finish(from.next, Arc::new(raw))?) } else { None };
        Ok(Polled { read, at_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Column, TimeUnitOption};
    use arrow::datatypes::DataType;
    use tidemill_engine::source::ReadBatch;

    fn config() -> GeneratorConfig {
        let case = generator::CASES.first().expect("a case");
        let settings = Settings { partitions: 3, ..Settings::default() };
        GeneratorConfig { case: case.name.into(), topic: case.topics[0].into(), settings, count: Some(5_000) }
    }

    fn read_all(partition: i32, from: i64, limits: Limits) -> Vec<ReadBatch> {
        let column = Column {
            name: "no_such_field".into(),
            path: vec!["no_such_field".into()],
            data_type: DataType::Int64,
            nullable: true,
            unit: TimeUnitOption::Ms,
            build: true,
        };
        let decode = DecodeConfig { columns: vec![column], ..DecodeConfig::default() };
        let open = generator_source(config(), decode).expect("a known case");
        let mut source = open().expect("opens");
        source.assign(&[(partition, from)]).expect("assigned");
        let mut all = Vec::new();
        loop {
            let polled = source.poll(partition, limits).expect("no error");
            all.extend(polled.read);
            if polled.at_end || all.last().is_some_and(|read| read.next >= limits.end) {
                return all;
            }
        }
    }

    fn records(reads: &[ReadBatch]) -> Vec<(i64, Option<Vec<u8>>)> {
        let last = reads.last().map_or(0, |read| read.next);
        let of = |offset| reads.iter().find_map(|read| read.raw.record(offset).map(|record| (offset, record.payload.map(<[u8]>::to_vec))));
        (0..last).filter_map(of).collect()
    }

    #[test]
    fn a_partition_is_the_same_however_it_is_read() {
        let large = Limits { rows_max: 10_000, bytes_max: usize::MAX, end: i64::MAX };
        let small = Limits { rows_max: 7, bytes_max: 1500, end: i64::MAX };
        let all = records(&read_all(1, 0, large));
        let ends = config().end_offsets().expect("a known case").expect("a count");
        assert_eq!((ends.len(), ends[1]), (3, (1, all.len() as i64)));
        assert!(all.len() > 500, "{}", all.len());
        assert_eq!(records(&read_all(1, 0, small)), all);
        let from = 200;
        assert_eq!(records(&read_all(1, from, small)), all[from as usize..]);
        assert_eq!(records(&read_all(1, 0, Limits { end: 123, ..large })), all[..123]);
    }
}

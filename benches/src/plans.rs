//! Operators as the planner makes them for a count by key, and decoded bids to give them: what the micro-benchmarks of windows and of
//! state share.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill_engine::error::Result;
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Origin, RawRecord, RawRecords, Rows, Tokens};
use tidemill_engine::time::BEGINNING;
use tidemill_operators::aggregate::{Function, Spec};
use tidemill_operators::session;
use tidemill_operators::window_aggregate::{Aggregation, Call, Emit, Final, Input, ROWS_PER_TICK_MAX, Windowing};
use tidemill_operators::windows::Windows;

use crate::bids::{Bids, DELAY_US};

/// Raw records of rows that were never bytes.
struct NoRaw;

impl RawRecords for NoRaw {
    fn record(&self, _offset: i64) -> Option<RawRecord<'_>> {
        None
    }
}

/// Bids a tick.
pub const TICK: usize = 65_536;

fn schema(columns: &[(&str, bool)]) -> SchemaRef {
    let kind = |time: bool| if time { DataType::Timestamp(TimeUnit::Microsecond, None) } else { DataType::Int64 };
    Arc::new(Schema::new(columns.iter().map(|(name, time)| Field::new(*name, kind(*time), true)).collect::<Vec<_>>()))
}

fn count() -> Call {
    let spec = Spec { function: Function::CountStar, input: None, output: DataType::Int64, retracts: false };
    Call { spec, argument: None, filter: None }
}

fn input() -> SchemaRef {
    schema(&[("key", false), ("time", true)])
}

fn output() -> SchemaRef {
    schema(&[("key", false), ("window_start", true), ("window_end", true), ("bids", false)])
}

/// `count(*)` by key in windows of `size_us` every `slide_us`.
pub fn windowed(slide_us: i64, size_us: i64) -> Result<Box<dyn Operator>> {
    let windows = Windows::hop(slide_us, size_us, 0)?;
    let aggregation = Aggregation {
        keys: vec![0],
        windowing: Some(Windowing { time: 1, windows, lateness_us: 0, retention_extra_us: 0 }),
        calls: vec![count()],
        input: input(),
        output: output(),
        sources: vec![0],
        emit: Emit::Final,
        retracts: false,
        rows_per_tick_max: ROWS_PER_TICK_MAX,
    };
    Ok(Box::new(Final::new(Arc::new(aggregation), Input::Raw)?))
}

/// `count(*)` by key in sessions.
pub fn sessions(gap_us: i64) -> Result<Box<dyn Operator>> {
    let plan = session::Sessions {
        keys: vec![0],
        time: 1,
        gap_us,
        lateness_us: 0,
        calls: vec![count()],
        input: input(),
        output: output(),
        sources: vec![0],
        emit: Emit::Final,
        latest: false,
    };
    Ok(Box::new(session::Final::new(Arc::new(plan), Input::Raw)?))
}

/// Decoded and hashed bids, a tick a batch, with the watermark after each.
pub fn ticks(bids: &Bids) -> Result<Vec<(Rows, i64)>> {
    let batch = |from: usize| {
        let to = (from + TICK).min(bids.len());
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(bids.auctions().iter().take(to).skip(from).map(|key| i64::from(*key))));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values((from..to).map(|bid| bids.time_us(bid))));
        let hashes = hash_columns(std::slice::from_ref(&keys), to - from)?;
        let origin = Origin {
            source: 0,
            partition: 0,
            offsets: (from as i64..to as i64).collect(),
            watermarks: vec![BEGINNING; to - from].into(),
            raw: Arc::new(NoRaw),
        };
        let rows = Rows {
            batch: RecordBatch::try_new(input(), vec![keys, times])?,
            weights: None,
            hashes: Some(hashes.into()),
            origin: Some(origin),
            tokens: Tokens::Each(0),
        };
        Ok((rows, bids.time_us(to.saturating_sub(1)) - DELAY_US))
    };
    (0..bids.len()).step_by(TICK).map(batch).collect()
}

/// Gives an operator all ticks; the rows it published.
pub fn feed(operator: &mut dyn Operator, ticks: &[(Rows, i64)]) -> Result<usize> {
    let (mut out, mut published) = (Output::default(), 0);
    for (rows, watermark) in ticks {
        operator.on_rows(0, rows.clone(), &mut out)?;
        operator.on_tick(Some(*watermark), &mut out)?;
        published += out.rows.drain(..).map(|rows| rows.len()).sum::<usize>();
    }
    Ok(published)
}

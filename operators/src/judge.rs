//! Judging: which windows each row of a batch enters, which it missed, and what becomes of rows that enter none.
//!
//! Always: a source row is judged once, by the watermark of its own partition before its own offset, so its lateness is a function
//! of the log; a derived row is never late. A row that missed every window is settled `Late`, one without a time or in a gap
//! between windows `Filtered`; a missed window gives one late event. CONTRACT §3. Called by everything windowed.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::letter::LateEvent;
use tidemill_engine::operator::Output;
use tidemill_engine::rows::{Origin, Rows};
use tidemill_engine::time::{BEGINNING, Micros, is_late};

use crate::tokens::settle_row;
use crate::windows::{Covering, Windows};

/// The windows `enter..=last` that rows count in. Rows with equal entry are kept together, never a copy a window.
pub type Entry = (i64, i64);

/// Rows of one batch that share an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// Their windows.
    pub entry: Entry,
    /// Which rows, ascending; `None`: all rows of the batch.
    pub rows: Option<Vec<u32>>,
}

/// Event times as microseconds, or the planner's mistake.
pub fn event_times(column: &ArrayRef) -> Result<&arrow::array::TimestampMicrosecondArray> {
    column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::failed(format!("an event time of type {}", column.data_type())))
}

/// Assigns rows to windows. Remembers times near by, so that most rows need no division.
#[derive(Debug, Clone)]
pub struct Judge {
    windows: Windows,
    lateness_us: Micros,
    recent: Vec<Covering>,
}

/// A row that enters nothing.
const NOWHERE: u32 = u32::MAX;
/// Ranges of times remembered; a tick rarely spans more windows.
const RECENT_MAX: usize = 8;

impl Judge {
    /// A judge of these windows, for an output that accepts rows `lateness_us` behind.
    pub fn new(windows: Windows, lateness_us: Micros) -> Self {
        Self { windows, lateness_us, recent: Vec::with_capacity(RECENT_MAX) }
    }

    /// The windows it judges by.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Assigns every row; settles and reports those that enter no window, reports the windows that the others missed.
    pub fn assign(&mut self, rows: &Rows, times: &ArrayRef, out: &mut Output) -> Result<Vec<Entered>> {
        let times = event_times(times)?;
        let nulls = times.nulls().filter(|nulls| nulls.null_count() > 0);
        let mut entries: Vec<Entry> = Vec::new();
        let mut places = Vec::with_capacity(rows.len());
        let mut dropped = false;
        let mut at = 0;
        for (row, time) in times.values().iter().enumerate() {
            let entry = if nulls.is_some_and(|nulls| nulls.is_null(row)) { None } else { self.covering(*time) };
            let entered = match (entry, &rows.origin) {
                (Some(entry), Some(origin)) => self.in_time(entry, origin, row, *time, out),
                (entry, _) => entry,
            };
            let Some(entered) = entered else {
                settle_row(&mut out.counts, if entry.is_some() { Fate::Late } else { Fate::Filtered }, &rows.tokens, row);
                places.push(NOWHERE);
                dropped = true;
                continue;
            };
            if entries.get(at) != Some(&entered) {
                at = entries.iter().position(|each| *each == entered).unwrap_or_else(|| {
                    entries.push(entered);
                    entries.len() - 1
                });
            }
            places.push(at as u32);
        }
        if let ([entry], false) = (entries.as_slice(), dropped) {
            return Ok(vec![Entered { entry: *entry, rows: None }]);
        }
        let mut lists: Vec<Vec<u32>> = vec![Vec::new(); entries.len()];
        for (row, place) in places.iter().enumerate() {
            if let Some(list) = lists.get_mut(*place as usize) {
                list.push(row as u32);
            }
        }
        Ok(entries.into_iter().zip(lists).map(|(entry, rows)| Entered { entry, rows: Some(rows) }).collect())
    }

    #[inline]
    fn covering(&mut self, time: Micros) -> Option<Entry> {
        if let Some(first) = self.recent.first().filter(|range| range.from <= time && time < range.to) {
            return first.windows;
        }
        self.covering_elsewhere(time)
    }

    fn covering_elsewhere(&mut self, time: Micros) -> Option<Entry> {
        if let Some(place) = self.recent.iter().position(|range| range.from <= time && time < range.to) {
            self.recent.swap(0, place);
        } else {
            self.recent.truncate(RECENT_MAX - 1);
            self.recent.insert(0, self.windows.covering(time));
        }
        self.recent.first().and_then(|range| range.windows)
    }

    /// What is left of `entry` for a source row after the windows it missed, which are reported.
    #[inline]
    fn in_time(&self, entry: Entry, origin: &Origin, row: usize, time: Micros, out: &mut Output) -> Option<Entry> {
        let watermark = origin.watermarks.get(row).copied().unwrap_or(BEGINNING);
        if !is_late(self.windows.end(entry.0), self.lateness_us, watermark) {
            return Some(entry);
        }
        self.missed(entry, origin, row, time, watermark, out)
    }

    #[cold]
    fn missed(
        &self,
        (first, last): Entry,
        origin: &Origin,
        row: usize,
        time: Micros,
        watermark: Micros,
        out: &mut Output,
    ) -> Option<Entry> {
        for k in first..=last {
            let (start, end) = (self.windows.start(k), self.windows.end(k));
            if !is_late(end, self.lateness_us, watermark) {
                return Some((k, last));
            }
            out.late.push(late_event(origin, row, time, Some((start, end))));
        }
        None
    }
}

/// The late event of a row for the window it missed (`None`: an operator without windows).
pub fn late_event(origin: &Origin, row: usize, event_time: Micros, window: Option<(Micros, Micros)>) -> LateEvent {
    let offset = origin.offsets.get(row).copied().unwrap_or(-1);
    LateEvent {
        source: origin.source,
        partition: origin.partition,
        offset,
        event_time,
        watermark: origin.watermarks.get(row).copied().unwrap_or(BEGINNING),
        window_start: window.map(|window| window.0),
        window_end: window.map(|window| window.1),
        payload: origin.raw.record(offset).and_then(|record| record.payload.map(<[u8]>::to_vec)),
    }
}

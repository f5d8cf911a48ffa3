//! `Final`: the half that keeps state. Publishes windows as the watermark passes them and repairs those already published.
//!
//! Always: rows for windows not yet published are folded into their pane at once; rows for published ones wait in `deltas` until the
//! tick's end (`Emit::Final`) or the epoch's (`Emit::Changes`, where every window counts as published), when old and new results
//! go out. A pane is dropped when nothing in time can reach it. The order of results is entry, then first arrival.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};
use tidemill_engine::state::{Changes, Scalars, TableSpec};
use tidemill_engine::time::{Micros, Watermark, minus};

use super::running::Running;
use super::state::{CLOSED, PUBLISHED_TO};
use super::{ALL, Aggregation, Batch, Emit, Maker, Values, no_column};
use crate::groups::Groups;
use crate::judge::{Entered, Entry, Judge};
use crate::pane::{Pane, States};
use crate::tokens::{hand_on, release};
use crate::windows::NO_WINDOW;

/// What `Final` is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Raw rows: there is no `Partial`.
    Raw,
    /// What `Partial` makes.
    Partials,
}

/// See the module doc.
pub struct Final {
    pub(super) aggregation: Arc<Aggregation>,
    pub(super) maker: Maker,
    input: Input,
    judge: Option<Judge>,
    pub(super) panes: BTreeMap<Entry, Pane>,
    /// The same entries as (last, enter), to find those that end.
    pub(super) by_last: BTreeSet<(i64, i64)>,
    /// Entries in which tokens may wait.
    pub(super) waiting: BTreeSet<Entry>,
    pub(super) deltas: BTreeMap<Entry, Pane>,
    pub(super) running: Running,
    /// The last window that the watermark has closed and that is published.
    pub(super) closed: i64,
    /// The last window that a closing publish has published.
    pub(super) published_to: i64,
    /// Rows that expire at or before this are dropped.
    pub(super) expired_below: Option<Micros>,
    /// Keys removed since the last epoch.
    pub(super) removed: Option<Groups>,
    /// Restored rows have not been looked at yet.
    pub(super) restored: bool,
    slots: Vec<u32>,
}

/// What results are emitted as.
pub(super) struct Publication {
    /// Their window, if there are windows.
    k: i64,
    weight: i64,
    tokens: Tokens,
}

impl Publication {
    /// Results of window `k`, with the tokens of the rows they read.
    pub(super) fn insert(k: i64, tokens: Tokens) -> Self {
        Self { k, weight: 1, tokens }
    }

    /// Results of window `k` that no longer hold.
    pub(super) fn retract(k: i64) -> Self {
        Self { k, weight: -1, tokens: Tokens::none() }
    }
}

impl Final {
    /// The keeping half of `aggregation`, or all of it if `input` is raw rows.
    pub fn new(aggregation: Arc<Aggregation>, input: Input) -> Result<Self> {
        if aggregation.windowing.is_none() && aggregation.emit == Emit::Final {
            return Err(Error::failed("an aggregate without windows never becomes final"));
        }
        let judge = aggregation.windowing.as_ref().map(|windowing| Judge::new(windowing.windows, windowing.lateness_us));
        let maker = Maker::new(&aggregation)?;
        let running = Running::new(&maker)?;
        Ok(Self {
            aggregation,
            maker,
            input,
            judge,
            panes: BTreeMap::new(),
            by_last: BTreeSet::new(),
            waiting: BTreeSet::new(),
            deltas: BTreeMap::new(),
            running,
            closed: NO_WINDOW,
            published_to: NO_WINDOW,
            expired_below: None,
            removed: None,
            restored: false,
            slots: Vec::new(),
        })
    }

    /// Rows for windows up to this one are repairs.
    pub(super) fn published(&self) -> i64 {
        match self.aggregation.emit {
            Emit::Final => self.closed.max(self.published_to),
            Emit::Changes => i64::MAX,
        }
    }

    fn enter(&mut self, rows: Rows, out: &mut Output) -> Result<()> {
        let (batch, entered) = match self.input {
            Input::Partials => self.partials(rows)?,
            Input::Raw => {
                let entered = match (&mut self.judge, &self.aggregation.windowing) {
                    (Some(judge), Some(windowing)) => {
                        let times = rows.batch.columns().get(windowing.time).ok_or_else(|| no_column(windowing.time))?;
                        judge.assign(&rows, times, out)?
                    }
                    _ => vec![Entered { entry: ALL, rows: None }],
                };
                (Batch::raw(&self.aggregation, &self.maker.codec, rows)?, entered)
            }
        };
        let published = self.published();
        for entered in entered {
            let entry = entered.entry;
            let late = entry.0 <= published;
            let panes = if late { &mut self.deltas } else { &mut self.panes };
            let pane = match panes.entry(entry) {
                std::collections::btree_map::Entry::Occupied(pane) => pane.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(self.maker.pane(!late)?),
            };
            batch.fold(&entered, pane, &self.maker.sources, &mut self.slots)?;
            batch.hold(&entered, &mut out.counts);
            if !late {
                self.by_last.insert((entry.1, entry.0));
                self.waiting.insert(entry);
            }
        }
        Ok(())
    }

    /// Partial's rows by entry.
    fn partials(&self, rows: Rows) -> Result<(Batch, Vec<Entered>)> {
        use arrow::array::AsArray;
        let keys = self.aggregation.keys.len();
        let int = |at: usize| {
            let column = rows.batch.columns().get(keys + at).and_then(|column| column.as_primitive_opt::<arrow::datatypes::Int64Type>());
            column
                .map(|column| column.values().clone())
                .ok_or_else(|| Error::failed("rows that are no partial aggregates reached an aggregate"))
        };
        let (enter, last, live) = (int(0)?, int(1)?, int(2)?);
        let mut lists: Vec<(Entry, Vec<u32>)> = Vec::new();
        let mut at = 0;
        for (row, entry) in (0..).zip(enter.iter().copied().zip(last.iter().copied())) {
            if lists.get(at).is_none_or(|list| list.0 != entry) {
                at = lists.iter().position(|list| list.0 == entry).unwrap_or_else(|| {
                    lists.push((entry, Vec::new()));
                    lists.len() - 1
                });
            }
            if let Some(list) = lists.get_mut(at) {
                list.1.push(row);
            }
        }
        let one = lists.len() == 1;
        let entered = lists.into_iter().map(|(entry, rows)| Entered { entry, rows: if one { None } else { Some(rows) } }).collect();
        let columns = rows.batch.columns();
        let (key_columns, states) =
            (columns.iter().take(keys).cloned().collect::<Vec<_>>(), columns.iter().skip(keys + 3).cloned().collect());
        let batch = Batch::new(&self.maker.codec, &key_columns, Some(Arc::from(live.as_ref())), Values::States(states), rows)?;
        Ok((batch, entered))
    }

    /// Emits the results of `slots`.
    pub(super) fn emit(&self, groups: &Groups, states: &States, slots: &[u32], what: Publication, out: &mut Output) -> Result<()> {
        let Publication { k, weight, tokens } = what;
        if slots.is_empty() {
            return Ok(());
        }
        let mut columns = groups.columns(slots)?;
        if let Some(windowing) = &self.aggregation.windowing {
            for time in [windowing.windows.start(k), windowing.windows.end(k)] {
                columns.push(Arc::new(TimestampMicrosecondArray::from_value(time, slots.len())) as ArrayRef);
            }
        }
        columns.extend(states.results(slots)?);
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.aggregation.output), columns, &options)?;
        let weights = if weight == 1 { None } else { Some(vec![weight; slots.len()].into()) };
        out.emit(Rows::derived(batch, weights, tokens));
        Ok(())
    }

    /// The first window after `after` in which there are entries.
    fn next_window(&self, after: i64) -> Option<i64> {
        let next = after.saturating_add(1);
        let reach = self.aggregation.windowing.as_ref().map_or(1, |windowing| windowing.windows.per_row());
        let covers = self.panes.range((next.saturating_sub(reach), i64::MIN)..(next, i64::MIN)).rev().any(|(entry, _)| entry.1 >= next);
        if covers { Some(next) } else { self.panes.range((next, i64::MIN)..).next().map(|(entry, _)| entry.0) }
    }

    /// Publishes the windows after `from` up to `to`; where it stopped, at the row limit if there is one.
    fn publish(&mut self, from: i64, to: i64, rows_max: usize, out: &mut Output) -> Result<i64> {
        let mut rows = 0;
        let mut done = from;
        while let Some(k) = self.next_window(done).filter(|k| *k <= to) {
            if rows >= rows_max {
                return Ok(k - 1);
            }
            rows += self.publish_window(k, out)?;
            done = k;
        }
        Ok(to)
    }

    fn publish_window(&mut self, k: i64, out: &mut Output) -> Result<usize> {
        if self.aggregation.windowing.as_ref().is_some_and(|windowing| !windowing.windows.is_tumble()) {
            return self.publish_running(k, out);
        }
        let Some(pane) = self.panes.get_mut(&(k, k)) else { return Ok(0) };
        let slots = pane.live_slots();
        let tokens = pane.take_pending(&slots);
        if self.aggregation.retracts {
            pane.touch(&slots);
        }
        let tokens = hand_on(&mut out.counts, &self.maker.sources, tokens);
        if let Some(pane) = self.panes.get(&(k, k)) {
            self.emit(&pane.groups, &pane.states, &slots, Publication::insert(k, tokens), out)?;
        }
        Ok(slots.len())
    }

    /// Drops the panes that nothing in time can reach any more.
    fn drop_expired(&mut self, watermark: Micros, out: &mut Output) -> Result<()> {
        let Some(windowing) = &self.aggregation.windowing else { return Ok(()) };
        let (windows, retention) = (windowing.windows, windowing.lateness_us.saturating_add(windowing.retention_extra_us));
        self.expired_below = self.expired_below.max(Some(watermark));
        while let Some((last, enter)) = self.by_last.first().copied() {
            if windows.end(last).saturating_add(retention) > watermark {
                break;
            }
            self.by_last.pop_first();
            self.waiting.remove(&(enter, last));
            if let Some(pane) = self.panes.remove(&(enter, last)) {
                self.running.forget((enter, last), &pane)?;
                for (source, pending) in self.maker.sources.iter().zip(&pane.pending) {
                    release(&mut out.counts, Fate::Filtered, *source, pending.iter().sum());
                }
            }
        }
        Ok(())
    }

    /// Does a change wait for a window whose panes this watermark drops? Its old result is computed from them.
    fn expires_waiting(&self, watermark: Micros) -> bool {
        self.aggregation.windowing.as_ref().is_some_and(|windowing| {
            let retention = windowing.lateness_us.saturating_add(windowing.retention_extra_us);
            let dropped_to = windowing.windows.closed_by(minus(watermark, retention));
            self.deltas.first_key_value().is_some_and(|(entry, _)| entry.0 <= dropped_to)
        })
    }

    fn tick(&mut self, watermark: Micros, out: &mut Output) -> Result<Micros> {
        if self.aggregation.emit == Emit::Final || self.expires_waiting(watermark) {
            self.repair(out)?;
        }
        let mut passed = watermark;
        if let (Some(windowing), Emit::Final) = (&self.aggregation.windowing, self.aggregation.emit) {
            let windows = windowing.windows;
            let target = windows.closed_by(watermark);
            let from = self.published();
            if target > from {
                let reached = self.publish(from, target, self.aggregation.rows_per_tick_max, out)?;
                if reached < target {
                    // The window that waits must still be open to what follows.
                    passed = windows.end(reached.saturating_add(1)).saturating_sub(1).min(watermark);
                }
                self.closed = self.closed.max(reached);
            } else {
                self.closed = self.closed.max(target);
            }
        }
        self.drop_expired(passed, out)?;
        Ok(passed)
    }
}

impl Operator for Final {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        if rows.is_empty() { Ok(()) } else { self.enter(rows, out) }
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        out.watermark = match watermark {
            Some(watermark) => Some(self.tick(watermark, out)?),
            None => {
                if self.aggregation.emit == Emit::Final {
                    self.repair(out)?;
                }
                None
            }
        };
        Ok(())
    }

    fn on_cut(&mut self, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        self.repair(out)
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.look_at_restored();
        self.repair(out)?;
        if self.aggregation.emit == Emit::Final {
            let from = self.published();
            if let Some((last, _)) = self.by_last.last().copied().filter(|(last, _)| *last > from) {
                self.publish(from, last, usize::MAX, out)?;
                self.published_to = self.published_to.max(last);
            }
        }
        Ok(())
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![self.table()]
    }

    fn changes(&mut self, _table: usize, full: bool) -> Result<Changes> {
        self.changed(full)
    }

    fn load(&mut self, _table: usize, rows: &RecordBatch) -> Result<()> {
        self.restore(rows)
    }

    fn scalars(&self) -> Scalars {
        Scalars::from([(CLOSED.to_owned(), self.closed), (PUBLISHED_TO.to_owned(), self.published_to)])
    }

    fn load_scalars(&mut self, scalars: &Scalars) {
        self.closed = self.closed.max(scalars.get(CLOSED).copied().unwrap_or(NO_WINDOW));
        self.published_to = self.published_to.max(scalars.get(PUBLISHED_TO).copied().unwrap_or(NO_WINDOW));
    }

    fn state_bytes(&self) -> usize {
        self.panes.values().chain(self.deltas.values()).map(Pane::bytes).sum::<usize>() + self.running.bytes()
    }
}

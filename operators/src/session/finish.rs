//! `Final`: the half that keeps sessions, publishes them when the watermark passes their end, and revises them.
//!
//! Always: the rows of a tick (of an epoch with `Emit::Changes`) are gathered beside the state and merged once. A published session
//! that they touch is retracted; what it became is published when the watermark has passed its new end, perhaps at once. Each
//! session has one valid timer, at or before the time at which it is published or dropped; one that fires early is set anew.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, Tokens};
use tidemill_engine::state::{Changes, TableSpec};
use tidemill_engine::time::{Micros, Watermark};

use super::store::{Span, Store};
use super::timers::Timers;
use super::{Maker, Sessions, token_columns};
use crate::groups::Groups;
use crate::tokens::{hand_on, place, release};
use crate::window_aggregate::{Emit, Input};

/// What is known of a session beside its span; one a session slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    pub key: u32,
    pub start: Micros,
    pub published: bool,
    /// When its timer fires; timers with another time are void.
    pub timer: Micros,
    /// `start` in the state table, if it was written.
    pub stored: Option<Micros>,
    pub changed: bool,
}

pub(super) const NEW: Info = Info { key: 0, start: 0, published: false, timer: Micros::MAX, stored: None, changed: false };

/// See the module doc.
pub struct Final {
    pub(super) maker: Maker,
    input: Input,
    pub(super) store: Store,
    pub(super) infos: Vec<Info>,
    delta: Option<Store>,
    timers: Timers,
    pub(super) changed: Vec<u32>,
    /// Rows of the state table to delete: keys, and (key slot there, start).
    pub(super) deleted: Option<(Groups, Vec<(u32, Micros)>)>,
    pub(super) expired_below: Option<Micros>,
}

/// What merging the rows of one key asks for.
#[derive(Default)]
struct Merges {
    /// Published sessions that change: key slot and span.
    retracted: Vec<(u32, Span)>,
    /// Within the state: (into, from).
    own: Vec<(u32, u32)>,
    /// From the gathered rows: slots there, and into which.
    from: Vec<u32>,
    into: Vec<u32>,
    /// Sessions that changed.
    touched: Vec<(u32, Span)>,
}

impl Final {
    /// The keeping half of `plan`, or all of it if `input` is raw rows.
    pub fn new(plan: Arc<Sessions>, input: Input) -> Result<Self> {
        let timers = Timers::new(plan.gap_us);
        let maker = Maker::new(plan)?;
        let store = maker.store()?;
        Ok(Self { maker, input, store, infos: Vec::new(), delta: None, timers, changed: Vec::new(), deleted: None, expired_below: None })
    }

    pub(super) fn kept_until(&self, last: Micros) -> Micros {
        let plan = &self.maker.plan;
        last.saturating_add(plan.gap_us.saturating_mul(2)).saturating_add(plan.lateness_us)
    }

    /// Lets the small sessions that a `Partial` made join those of `store`.
    fn fill_partials(&self, store: &mut Store, rows: &Rows, out: &mut Output) -> Result<()> {
        let plan = &self.maker.plan;
        let keys = plan.keys.len();
        let int = |at: usize| {
            let column = rows.batch.columns().get(keys + at).and_then(|column| column.as_primitive_opt::<Int64Type>());
            column.map(|column| column.values().clone()).ok_or_else(|| Error::failed("rows that are no partial sessions reached a session"))
        };
        let (starts, lasts, live) = (int(0)?, int(1)?, int(2)?);
        let columns = rows.batch.columns();
        let key_columns: Vec<ArrayRef> = columns.iter().take(keys).cloned().collect();
        let hashes = match &rows.hashes {
            Some(hashes) => Arc::clone(hashes),
            None => tidemill_engine::hash::hash_columns(&key_columns, rows.len())?.into(),
        };
        let mut slots = Vec::new();
        store.groups.insert(&self.maker.codec.encode(&key_columns)?, &hashes, None, &mut slots);
        store.resize();
        for (slot, (start, last)) in slots.iter_mut().zip(starts.iter().zip(lasts.iter())) {
            *slot = store.join(*slot, *start, *last);
        }
        store.resize();
        slots.iter().zip(live.iter()).for_each(|(slot, live)| store.states.live[*slot as usize] += live);
        for (source, column) in plan.sources.iter().zip(token_columns(&rows.tokens, &plan.sources, rows.len())) {
            let pending = &mut store.pending[place(&plan.sources, *source)?];
            slots.iter().zip(&column).for_each(|(slot, tokens)| pending[*slot as usize] += tokens);
            out.counts.hold(*source, column.iter().sum());
        }
        store.states.merge(&slots, &columns.iter().skip(keys + 3).cloned().collect::<Vec<_>>())?;
        store.settle_merges(self.maker.states()?)
    }

    /// Merges what was gathered, retracts the published sessions it touches, and sets timers. The sessions touched.
    fn merge(&mut self, out: &mut Output) -> Result<Vec<(u32, Span)>> {
        let Some(delta) = self.delta.take() else { return Ok(Vec::new()) };
        let mut merges = Merges::default();
        for (from, spans) in (0..).zip(&delta.lists) {
            if !spans.as_slice().is_empty() {
                let key = self.store.groups.insert_same(&delta.groups, from);
                self.store.grow_lists();
                self.plan_key(key, spans.as_slice(), &mut merges);
            }
        }
        let retracted = std::mem::take(&mut merges.retracted);
        self.emit(&retracted, -1, Tokens::none(), out)?;
        self.store.resize();
        for (_, from) in &merges.own {
            self.forget_row(*from);
            self.infos[*from as usize] = NEW;
        }
        self.store.merge_slots(&merges.own, self.maker.states()?)?;
        self.store.states.merge_from(&merges.into, &delta.states, &merges.from, 1)?;
        for (pending, gathered) in self.store.pending.iter_mut().zip(&delta.pending) {
            for (into, from) in merges.into.iter().zip(&merges.from) {
                pending[*into as usize] += gathered[*from as usize];
            }
        }
        for (key, span) in &merges.touched {
            let end = span.last.saturating_add(self.maker.plan.gap_us);
            let info = &mut self.infos[span.slot as usize];
            (info.key, info.start, info.published) = (*key, span.start, false);
            self.set_timer(span.slot, end);
            self.mark(span.slot);
            if self.infos[span.slot as usize].stored.is_some_and(|stored| stored != span.start) {
                self.forget_row(span.slot);
            }
        }
        Ok(merges.touched)
    }

    /// Joins the gathered spans of one key with its sessions: which merge into which, and what the list of the key becomes.
    fn plan_key(&mut self, key: u32, gathered: &[Span], merges: &mut Merges) {
        let (Some(first), Some(end)) = (gathered.first(), gathered.last()) else { return };
        let gap = self.maker.plan.gap_us;
        let near = self.store.lists[key as usize].near(first.start, end.last, gap);
        let own: Vec<Span> = self.store.lists[key as usize].as_slice().get(near.clone()).unwrap_or_default().to_vec();
        let mut all: Vec<(Span, bool)> = own.iter().map(|span| (*span, true)).chain(gathered.iter().map(|span| (*span, false))).collect();
        all.sort_by_key(|(span, own)| (span.start, !own));
        let mut spans: Vec<Span> = Vec::with_capacity(all.len());
        let mut rest = all.as_slice();
        while let Some(((head, _), _)) = rest.split_first() {
            let mut joined = *head;
            let mut members = 0;
            while let Some((span, _)) = rest.get(members).filter(|(span, _)| span.start <= joined.last.saturating_add(gap)) {
                joined.last = joined.last.max(span.last);
                members += 1;
            }
            let (cluster, after) = rest.split_at(members);
            rest = after;
            joined.slot = match cluster.iter().find(|(_, own)| *own) {
                Some((span, _)) => span.slot,
                None => self.new_session(),
            };
            if cluster.iter().any(|(_, own)| !own) {
                for (span, own) in cluster {
                    match own {
                        true => {
                            if self.infos[span.slot as usize].published {
                                merges.retracted.push((key, *span));
                            }
                            if span.slot != joined.slot {
                                merges.own.push((joined.slot, span.slot));
                            }
                        }
                        false => {
                            merges.from.push(span.slot);
                            merges.into.push(joined.slot);
                        }
                    }
                }
                merges.touched.push((key, joined));
            }
            spans.push(joined);
        }
        self.store.lists[key as usize].replace(near, &spans);
    }

    pub(super) fn new_session(&mut self) -> u32 {
        let slot = self.store.add_slot();
        self.infos.resize(self.infos.len().max(slot as usize + 1), NEW);
        self.infos[slot as usize] = NEW;
        slot
    }

    /// Lets the session's timer fire at `time` if it would fire later.
    pub(super) fn set_timer(&mut self, slot: u32, time: Micros) {
        let info = &mut self.infos[slot as usize];
        if time < info.timer {
            info.timer = time;
            self.timers.set(time, slot);
        }
    }

    fn mark(&mut self, slot: u32) {
        let info = &mut self.infos[slot as usize];
        if !info.changed {
            info.changed = true;
            self.changed.push(slot);
        }
    }

    /// The session's row in the state table is no more.
    fn forget_row(&mut self, slot: u32) {
        let info = &mut self.infos[slot as usize];
        if let Some(start) = info.stored.take() {
            let (groups, rows) = self.deleted.get_or_insert_with(|| (Groups::new(Arc::clone(&self.maker.codec)), Vec::new()));
            rows.push((groups.insert_same(&self.store.groups, info.key), start));
        }
    }

    /// The span of a session, found through its key.
    pub(super) fn span(&self, slot: u32) -> Option<Span> {
        let info = self.infos.get(slot as usize)?;
        let spans = self.store.lists.get(info.key as usize)?.as_slice();
        spans.get(spans.partition_point(|span| span.start < info.start)).copied().filter(|span| span.slot == slot)
    }

    fn emit(&self, sessions: &[(u32, Span)], weight: i64, tokens: Tokens, out: &mut Output) -> Result<()> {
        if sessions.is_empty() {
            return Ok(());
        }
        let gap = self.maker.plan.gap_us;
        let (keys, slots): (Vec<u32>, Vec<u32>) = sessions.iter().map(|(key, span)| (*key, span.slot)).unzip();
        let mut columns = self.store.groups.columns(&keys)?;
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(sessions.iter().map(|(_, span)| span.start))) as ArrayRef);
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(sessions.iter().map(|(_, span)| span.last.saturating_add(gap)))));
        columns.extend(self.store.states.results(&slots)?);
        let batch = RecordBatch::try_new(Arc::clone(&self.maker.plan.output), columns)?;
        let weights = if weight == 1 { None } else { Some(vec![weight; slots.len()].into()) };
        out.emit(Rows::derived(batch, weights, tokens));
        Ok(())
    }

    fn publish(&mut self, sessions: &[(u32, Span)], out: &mut Output) -> Result<()> {
        let of = |pending: &mut Vec<i64>| sessions.iter().map(|(_, span)| std::mem::take(&mut pending[span.slot as usize])).collect();
        let tokens = self.store.pending.iter_mut().map(of).collect();
        let tokens = hand_on(&mut out.counts, &self.maker.plan.sources, tokens);
        for (_, span) in sessions {
            self.infos[span.slot as usize].published = true;
            self.mark(span.slot);
        }
        self.emit(sessions, 1, tokens, out)
    }

    /// Publishes and drops what `watermark` completes.
    fn fire(&mut self, watermark: Micros, out: &mut Output) -> Result<()> {
        let (mut due, mut expired) = (Vec::new(), Vec::new());
        let mut timers = self.timers.take_due(watermark);
        while !timers.is_empty() {
            for (time, slot) in timers {
                let Some(span) = self.span(slot).filter(|_| self.infos[slot as usize].timer == time) else { continue };
                let (end, until) = (span.last.saturating_add(self.maker.plan.gap_us), self.kept_until(span.last));
                let latest = self.maker.plan.latest;
                let info = &mut self.infos[slot as usize];
                if !info.published && end <= watermark && !latest {
                    info.published = true;
                    due.push((info.key, span));
                }
                info.timer = if !info.published && !latest { end } else { until };
                if info.timer <= watermark {
                    expired.push(slot);
                    info.timer = Micros::MAX;
                } else {
                    self.timers.set(info.timer, slot);
                }
            }
            timers = self.timers.take_due(watermark);
        }
        self.publish(&due, out)?;
        expired.into_iter().for_each(|slot| self.drop_session(slot, out));
        self.expired_below = self.expired_below.max(Some(watermark));
        Ok(())
    }

    fn drop_session(&mut self, slot: u32, out: &mut Output) {
        let (Some(span), key) = (self.span(slot), self.infos[slot as usize].key) else { return };
        for (source, pending) in self.maker.plan.sources.iter().zip(&self.store.pending) {
            release(&mut out.counts, Fate::Filtered, *source, pending[slot as usize]);
        }
        let spans = &mut self.store.lists[key as usize];
        let at = spans.as_slice().partition_point(|each| each.start < span.start);
        spans.replace(at..at + 1, &[]);
        if spans.as_slice().is_empty() {
            self.store.groups.remove(key);
        }
        self.store.free_slot(slot);
        self.infos[slot as usize] = NEW;
    }

    /// Merges and publishes everything that changed.
    fn publish_changes(&mut self, out: &mut Output) -> Result<()> {
        let touched = self.merge(out)?;
        if !self.maker.plan.latest {
            return self.publish(&touched, out);
        }
        let mut keys: Vec<u32> = touched.iter().map(|(key, _)| *key).collect();
        keys.dedup();
        let (mut passed, mut latest) = (Vec::new(), Vec::new());
        for key in keys {
            let Some((last, earlier)) = self.store.lists.get(key as usize).and_then(|spans| spans.as_slice().split_last()) else {
                continue;
            };
            let published = |span: &Span| self.infos.get(span.slot as usize).is_some_and(|info| info.published);
            passed.extend(earlier.iter().filter(|span| published(span)).map(|span| (key, *span)));
            if !published(last) {
                latest.push((key, *last));
            }
        }
        self.emit(&passed, -1, Tokens::none(), out)?;
        for (_, span) in &passed {
            self.infos[span.slot as usize].published = false;
            self.mark(span.slot);
        }
        self.publish(&latest, out)
    }
}

impl Operator for Final {
    fn name(&self) -> &'static str {
        "session"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut delta = match self.delta.take() {
            Some(delta) => delta,
            None => self.maker.store()?,
        };
        match self.input {
            Input::Raw => self.maker.fill(&mut delta, &rows, true, out)?,
            Input::Partials => self.fill_partials(&mut delta, &rows, out)?,
        }
        self.delta = Some(delta);
        Ok(())
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        if self.maker.plan.emit == Emit::Final {
            self.merge(out)?;
        }
        let Some(watermark) = watermark else { return Ok(()) };
        if self.timers.may_be_due(watermark) {
            if self.maker.plan.emit == Emit::Changes {
                self.publish_changes(out)?;
            }
            self.fire(watermark, out)?;
        }
        Ok(())
    }

    fn on_cut(&mut self, out: &mut Output) -> Result<()> {
        if self.maker.plan.emit == Emit::Changes { self.publish_changes(out) } else { Ok(()) }
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        self.publish_changes(out)?;
        if self.maker.plan.latest {
            return Ok(());
        }
        let lists = (0..).zip(&self.store.lists).flat_map(|(key, spans)| spans.as_slice().iter().map(move |span| (key, *span)));
        let open: Vec<(u32, Span)> = lists.filter(|(_, span)| !self.infos[span.slot as usize].published).collect();
        self.publish(&open, out)
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![self.table()]
    }

    fn changes(&mut self, _table: usize, full: bool) -> Result<Changes> {
        self.changes_since(full)
    }

    fn load(&mut self, _table: usize, rows: &RecordBatch) -> Result<()> {
        self.restore(rows)
    }

    fn state_bytes(&self) -> usize {
        self.store.bytes() + self.infos.capacity() * size_of::<Info>() + self.timers.bytes()
    }
}

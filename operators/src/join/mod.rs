//! `Join`: two streams joined by key, each row with the rows of the other side that lie within a span of time around it.
//!
//! Always: `right time - left time` of a pair lies in `low_us..=high_us`. A pair goes out as soon as both rows are there, so it is a function of
//! the log: a row is kept until the watermark has passed the last moment at which a match in time may come. What a row is without a match (the
//! outer forms, anti) is known then and goes out then; the end of a bounded run publishes it early, and a match that comes later takes it back.
//! Source rows are late when they are behind their own partition's watermark by more than the lateness; the planner holds the inputs'
//! watermarks back by it. Derived rows may be taken back, by their content. The output's watermark stays behind by the reach of the span.
//!
//! A row's tokens go out with the first result that reads it; a row that none has read is `filtered` when it is dropped.
//!
//! The symmetric hash join of Wilschut and Apers (1991) with windows on both sides (Kang, Naughton, Viglas 2003). A row costs one look-up in
//! the table of keys and O(log n + matches) among its key's n rows; disorder within a key costs the rows that it jumps over.

mod results;
mod side;
mod state;

#[cfg(test)]
mod model_tests;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::row::RowConverter;
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, SourceId};
use tidemill_engine::state::{Changes, TableSpec};
use tidemill_engine::time::{BEGINNING, Micros, Watermark, minus};

use crate::expression::Expression;
use crate::groups::Groups;
use crate::judge::{event_times, late_event};
use crate::keys::KeyCodec;
use crate::tokens::{release, settle_row};
use crate::window_aggregate::ROWS_PER_TICK_MAX;
use side::{At, Held, Side};

/// The port of the left rows.
pub const LEFT: usize = 0;
/// The port of the right rows.
pub const RIGHT: usize = 1;

/// Which rows are results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Pairs.
    Inner,
    /// Pairs, and left rows without a match.
    Left,
    /// Pairs, and right rows without a match.
    Right,
    /// Pairs, and the rows of both sides without a match.
    Full,
    /// Left rows with a match, once.
    Semi,
    /// Left rows without a match.
    Anti,
}

impl Kind {
    /// Rows of this side are results of their own when nothing matches them.
    fn keeps(self, side: usize) -> bool {
        match self {
            Self::Inner | Self::Semi => false,
            Self::Left | Self::Anti => side == LEFT,
            Self::Right => side == RIGHT,
            Self::Full => true,
        }
    }

    /// A row of this side may be a result of its own.
    fn singles(self, side: usize) -> bool {
        self.keeps(side) || (self == Self::Semi && side == LEFT)
    }

    /// Both sides' columns are in the results.
    fn pairs(self) -> bool {
        !matches!(self, Self::Semi | Self::Anti)
    }
}

/// One side of a join.
#[derive(Debug, Clone)]
pub struct SidePlan {
    /// Result columns, join keys, time, and behind them whatever else names its rows.
    pub schema: SchemaRef,
    /// Result columns.
    pub width: usize,
    /// Derived rows: the columns that name them, counted over the result columns and then those behind the time. `None`: source rows.
    pub names: Option<Vec<usize>>,
    /// Source rows that carry their windows, which they were judged by: the time is part of their name, since a record may be in several.
    pub windowed: bool,
}

impl SidePlan {
    /// The columns that are kept: the result columns, and those behind the time.
    fn kept(&self, keys: usize) -> Vec<FieldRef> {
        let (own, more) = (self.schema.fields().iter().take(self.width), self.schema.fields().iter().skip(self.width + keys + 1));
        own.chain(more).cloned().collect()
    }

    /// What names its rows: their place in the log, or columns of theirs.
    fn name_types(&self, keys: usize) -> Vec<DataType> {
        match &self.names {
            None => {
                let place = [DataType::Utf8View, DataType::Int32, DataType::Int64];
                let time = self.schema.fields().get(self.width + keys).filter(|_| self.windowed).map(|field| field.data_type().clone());
                place.into_iter().chain(time).collect()
            }
            Some(names) => {
                let kept = self.kept(keys);
                names.iter().filter_map(|name| kept.get(*name)).map(|field| field.data_type().clone()).collect()
            }
        }
    }
}

/// What a join reads and makes.
#[derive(Clone)]
pub struct JoinPlan {
    /// Which rows are results.
    pub kind: Kind,
    /// Left and right.
    pub sides: [SidePlan; 2],
    /// Join keys on either side, of equal types; a NULL matches nothing.
    pub keys: usize,
    /// The least `right time - left time`.
    pub low_us: Micros,
    /// The greatest.
    pub high_us: Micros,
    /// What else a pair must meet, over the result columns of both sides.
    pub condition: Option<Arc<dyn Expression>>,
    /// How far behind its partition's watermark a source row may come.
    pub lateness_us: Micros,
    /// The sources whose tokens may arrive.
    pub sources: Vec<SourceId>,
    /// What sources are called in the names of rows.
    pub source_names: Vec<(SourceId, String)>,
}

impl JoinPlan {
    /// The columns that name a row of the result, behind all others: what names its left row, then its right row.
    pub fn name_fields(&self) -> Vec<Field> {
        let right = self.sides.get(RIGHT).filter(|_| self.kind.pairs());
        let types = self.sides.iter().take(1).chain(right).flat_map(|side| side.name_types(self.keys));
        types.enumerate().map(|(number, data_type)| Field::new(format!("__name_{number}"), data_type, true)).collect()
    }

    /// The columns of the results.
    pub fn output(&self) -> SchemaRef {
        let sides = if self.kind.pairs() { 2 } else { 1 };
        let own = self.sides.iter().take(sides).flat_map(|side| side.schema.fields().iter().take(side.width));
        let all = own.map(|field| field.as_ref().clone().with_nullable(true)).chain(self.name_fields());
        Arc::new(Schema::new(all.collect::<Vec<_>>()))
    }

    /// How far behind its watermark a result may come.
    fn reach_us(&self) -> Micros {
        // A row whose time is over exactly now is told about by the next tick.
        self.high_us.max(self.low_us.saturating_neg()).max(0).saturating_add(1)
    }

    /// The times of the other side that match a row of `side` at `time`.
    fn matching(&self, side: usize, time: Micros) -> (Micros, Micros) {
        match side {
            LEFT => (time.saturating_add(self.low_us), time.saturating_add(self.high_us)),
            _ => (time.saturating_sub(self.high_us), time.saturating_sub(self.low_us)),
        }
    }
}

/// A row and one that may match it.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    own: u32,
    /// Where `own` stands in its batch.
    row: u32,
    other: u32,
    /// How many copies of `own` have come (or gone).
    delta: i64,
    /// `own` was not there before.
    fresh: bool,
}

/// Candidates that are decided together.
const CHUNK: usize = 8_192;

/// Tokens of rows that were taken back, until the tick's end shows what has replaced them: group, time, one a source.
type Orphan = (u32, Micros, Vec<i64>);

/// See the module doc.
pub struct Join {
    plan: JoinPlan,
    output: SchemaRef,
    /// What `condition` is evaluated over.
    both: SchemaRef,
    codec: Arc<KeyCodec>,
    /// Of the columns that are kept of each side.
    rows: [RowConverter; 2],
    fields: [Vec<FieldRef>; 2],
    groups: Groups,
    sides: [Side; 2],
    orphans: [Vec<Orphan>; 2],
    /// Groups that may have lost all they had; they are forgotten once that is written.
    emptied: Vec<u32>,
    expired_below: Option<Micros>,
    rows_per_tick_max: usize,
}

fn wrong() -> Error {
    Error::failed("a join does not have the columns that it was planned with")
}

impl Join {
    /// A join of this plan.
    pub fn new(plan: JoinPlan) -> Result<Self> {
        let [left, right] = &plan.sides;
        let keys = left.schema.fields().get(left.width..left.width + plan.keys).ok_or_else(wrong)?.to_vec();
        let codec = Arc::new(KeyCodec::new(keys)?);
        let fields = [left, right].map(|side| side.kept(plan.keys));
        let converter = |fields: &[FieldRef]| {
            RowConverter::new(fields.iter().map(|field| arrow::row::SortField::new(field.data_type().clone())).collect())
        };
        let both = [left, right].into_iter().flat_map(|side| side.schema.fields().iter().take(side.width));
        let both = both.map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        let stride = plan.sources.len();
        Ok(Self {
            output: plan.output(),
            both: Arc::new(Schema::new(both)),
            groups: Groups::new(Arc::clone(&codec)),
            codec,
            rows: [converter(&fields[LEFT])?, converter(&fields[RIGHT])?],
            fields,
            sides: [LEFT, RIGHT].map(|_| Side::new(stride)),
            orphans: Default::default(),
            emptied: Vec::new(),
            expired_below: None,
            rows_per_tick_max: ROWS_PER_TICK_MAX,
            plan,
        })
    }

    /// When a row of `side` can be matched no more: once the watermark has passed it.
    fn expiry(&self, side: usize, time: Micros) -> Micros {
        self.plan.matching(side, time).1
    }

    fn slots(&mut self, rows: &Rows, keys: &[ArrayRef]) -> Result<Vec<u32>> {
        let computed;
        let hashes = match rows.hashes.as_deref() {
            Some(hashes) => hashes,
            None => {
                computed = hash_columns(keys, rows.len())?;
                &computed
            }
        };
        let mut slots = Vec::new();
        self.groups.insert(&self.codec.encode(keys)?, hashes, None, &mut slots);
        Ok(slots)
    }

    fn take(&mut self, side: usize, rows: &Rows, out: &mut Output) -> Result<()> {
        let (width, keys) = (self.plan.sides[side].width, self.plan.keys);
        let derived = self.plan.sides[side].names.is_some();
        let judged = !self.plan.sides[side].windowed;
        let columns = rows.batch.columns();
        let (values, rest) = columns.split_at_checked(width).ok_or_else(wrong)?;
        let (keys, rest) = rest.split_at_checked(keys).ok_or_else(wrong)?;
        let (time, more) = rest.split_first().ok_or_else(wrong)?;
        let times = event_times(time)?;
        if !derived && rows.origin.is_none() {
            return Err(Error::failed("a row of a join without its place in the log"));
        }
        let groups = self.slots(rows, keys)?;
        let kept: Vec<ArrayRef> = values.iter().chain(more).cloned().collect();
        let contents = (!kept.is_empty()).then(|| self.rows[side].convert_columns(&kept)).transpose()?;
        let nulls: Vec<&ArrayRef> = keys.iter().filter(|key| key.null_count() > 0).collect();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut lonely: Vec<u32> = Vec::new();
        let mut gone: Vec<u32> = Vec::new();
        let mut singles: Vec<(u32, i64)> = Vec::new();
        for (row, group) in groups.into_iter().enumerate() {
            if judged && times.is_valid(row) && self.late(rows, row, times.value(row), out) {
                self.emptied.push(group);
                continue;
            }
            let matchable = times.is_valid(row) && !nulls.iter().any(|key| key.is_null(row));
            if !matchable && !self.plan.kind.keeps(side) {
                settle_row(&mut out.counts, Fate::Filtered, &rows.tokens, row);
                self.emptied.push(group);
                continue;
            }
            let time = if times.is_valid(row) { times.value(row) } else { BEGINNING };
            let content: &[u8] = contents.as_ref().map_or(&[], |contents| contents.row(row).data());
            let delta = rows.weight(row);
            let at = rows.origin.as_ref().map_or_else(At::default, |origin| At {
                partition: origin.partition,
                source: origin.source as u32,
                offset: origin.offsets.get(row).copied().unwrap_or(-1),
            });
            let known = if derived && matchable { self.sides[side].find(group, time, content) } else { None };
            let slot = known.unwrap_or_else(|| self.sides[side].add(Held::new(time, group, content, at)));
            for (place, source) in self.plan.sources.iter().enumerate() {
                let tokens = rows.tokens.of(*source, row);
                out.counts.hold(*source, tokens);
                self.sides[side].add_tokens(slot, place, tokens);
            }
            let held = self.sides[side].held_mut(slot);
            held.count += delta;
            let (count, shown) = (held.count, held.shown);
            if !matchable {
                lonely.push(slot);
                self.emptied.push(group);
                continue;
            }
            if known.is_none() {
                let expiry = self.expiry(side, time);
                self.sides[side].link(slot, expiry);
            }
            if shown {
                singles.push((slot, delta));
            }
            if count == 0 {
                gone.push(slot);
            }
            self.sides[side].touch(slot);
            let (from, to) = self.plan.matching(side, time);
            let fresh = known.is_none();
            for other in self.sides[1 - side].within(group, from, to) {
                candidates.push(Candidate { own: slot, row: row as u32, other, delta, fresh });
            }
            if candidates.len() >= CHUNK {
                self.decide(side, &kept, &mut candidates, out)?;
            }
        }
        self.decide(side, &kept, &mut candidates, out)?;
        singles.extend(lonely.iter().map(|slot| (*slot, self.sides[side].held(*slot).count)));
        self.alone(side, &singles, out)?;
        for slot in lonely {
            self.sides[side].free(slot);
        }
        for slot in gone {
            self.take_back(side, slot);
        }
        Ok(())
    }

    /// Whether a source row is late; then it is put aside.
    fn late(&self, rows: &Rows, row: usize, time: Micros, out: &mut Output) -> bool {
        let Some(origin) = &rows.origin else { return false };
        let watermark = origin.watermarks.get(row).copied().unwrap_or(BEGINNING);
        let late = watermark != BEGINNING && time.saturating_add(self.plan.lateness_us) < watermark;
        if late {
            out.late.push(late_event(origin, row, time, None));
            settle_row(&mut out.counts, Fate::Late, &rows.tokens, row);
        }
        late
    }

    /// A row of which no copy is left. What it has not settled waits for what replaces it.
    fn take_back(&mut self, side: usize, slot: u32) {
        let held = self.sides[side].held(slot);
        if held.count != 0 || !held.linked {
            return;
        }
        let (group, time) = (held.group, held.time);
        let tokens = self.sides[side].take_tokens(slot);
        if tokens.iter().any(|tokens| *tokens != 0) {
            self.orphans[side].push((group, time, tokens));
        }
        self.sides[side].remove(slot);
        self.emptied.push(group);
    }

    /// Gives what was taken back to the rows that have come instead, or settles it.
    fn adopt(&mut self, out: &mut Output) {
        for side in [LEFT, RIGHT] {
            for (group, time, tokens) in std::mem::take(&mut self.orphans[side]) {
                let heir = self.sides[side].within(group, time, time).next();
                let read = heir.map(|slot| self.sides[side].held(slot)).is_some_and(|held| held.shown || held.matches > 0);
                for (place, (source, tokens)) in self.plan.sources.iter().zip(tokens).enumerate() {
                    match heir {
                        Some(slot) if !read => {
                            self.sides[side].add_tokens(slot, place, tokens);
                            self.sides[side].touch(slot);
                        }
                        Some(_) => release(&mut out.counts, Fate::Out, *source, tokens),
                        None => release(&mut out.counts, Fate::Filtered, *source, tokens),
                    }
                }
            }
        }
    }

    /// Drops the rows that can be matched no more. Returns what time is left undone, when that was too many.
    fn expire(&mut self, watermark: Micros, out: &mut Output) -> Result<Option<Micros>> {
        let mut undone = None;
        for side in [LEFT, RIGHT] {
            let shift = self.expiry(side, 0);
            let mut gone: Vec<u32> = Vec::new();
            while let Some((expiry, group)) = self.sides[side].next_due() {
                if expiry >= watermark {
                    break;
                }
                if gone.len() >= self.rows_per_tick_max {
                    undone = Some(undone.map_or(expiry, |undone: Micros| undone.min(expiry)));
                    break;
                }
                self.sides[side].pop_due(group, shift, watermark, &mut gone);
                self.emptied.push(group);
            }
            let keeps = self.plan.kind.keeps(side);
            let unmatched = gone.iter().filter(|slot| {
                let held = self.sides[side].held(**slot);
                keeps && held.matches == 0 && !held.shown && held.count > 0
            });
            let singles: Vec<(u32, i64)> = unmatched.map(|slot| (*slot, self.sides[side].held(*slot).count)).collect();
            self.alone(side, &singles, out)?;
            for slot in gone {
                for (source, tokens) in self.plan.sources.iter().zip(self.sides[side].take_tokens(slot)) {
                    release(&mut out.counts, Fate::Filtered, *source, tokens);
                }
                self.sides[side].free(slot);
            }
        }
        Ok(undone)
    }

    fn is_empty(&self, group: u32) -> bool {
        self.sides.iter().all(|side| side.is_empty(group))
    }
}

impl Operator for Join {
    fn name(&self) -> &'static str {
        "join"
    }

    fn on_rows(&mut self, port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { self.take(port.min(RIGHT), &rows, out) }
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        self.adopt(out);
        let mut reached = watermark;
        if let Some(watermark) = watermark.filter(|watermark| *watermark != BEGINNING) {
            let undone = self.expire(watermark, out)?;
            let done = undone.map_or(watermark, |undone| undone.min(watermark));
            reached = Some(done);
            self.expired_below = self.expired_below.max(Some(done.saturating_sub(1)));
        }
        let reach = self.plan.reach_us();
        out.watermark = reached.map(|reached| minus(reached, reach));
        Ok(())
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        for side in [LEFT, RIGHT] {
            if !self.plan.kind.keeps(side) {
                continue;
            }
            let open = |held: &Held| held.matches == 0 && !held.shown && held.count > 0;
            let singles: Vec<(u32, i64)> =
                self.sides[side].all().filter(|(_, held)| open(held)).map(|(slot, held)| (slot, held.count)).collect();
            for (slot, _) in &singles {
                self.sides[side].held_mut(*slot).shown = true;
                self.sides[side].touch(*slot);
            }
            for singles in singles.chunks(CHUNK) {
                self.alone(side, singles, out)?;
            }
        }
        Ok(())
    }

    fn tables(&self) -> Vec<TableSpec> {
        [LEFT, RIGHT].map(|side| self.table(side)).into()
    }

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        self.changes_of(table.min(RIGHT), full)
    }

    fn load(&mut self, table: usize, rows: &RecordBatch) -> Result<()> {
        self.load_side(table.min(RIGHT), rows)
    }

    fn state_bytes(&self) -> usize {
        self.groups.bytes() + self.sides.iter().map(Side::bytes).sum::<usize>()
    }
}

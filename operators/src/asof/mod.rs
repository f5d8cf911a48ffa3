//! `Asof`: each row of a stream with the version of a key that is valid at the row's time, or with NULLs.
//!
//! Always: ordered by event. A row waits until the watermark (the least over both inputs) has strictly passed its time; then everything that
//! can be its match has come, since rows behind their own partition's watermark by more than the lateness are late on either side, and the
//! planner holds the inputs' watermarks back by the lateness. So a result is a function of the log and is never revised, but for those that
//! the end of a bounded run publishes early: they are put right as time passes them.
//!
//! Of the versions at or before a time (before it, if `strict`) the one with the greatest (time, partition, offset) counts; one that deletes
//! matches nothing. Of the versions that the watermark has passed only the newest of each key is kept, for ever unless it deletes.
//!
//! A row's tokens go out with its first result, a version's with the first result that reads it; a version dropped unread is `filtered`.

mod judged;
mod state;
mod versions;

#[cfg(test)]
mod model_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use arrow::row::{RowConverter, SortField};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, SourceId, Tokens};
use tidemill_engine::state::{Changes, TableSpec};
use tidemill_engine::time::{BEGINNING, Micros, Watermark};

use crate::groups::Groups;
use crate::keys::KeyCodec;
use crate::tokens::{hand_on, release};
use versions::{Place, Versions};

/// The port of the rows.
pub const LEFT: usize = 0;
/// The port of the versions.
pub const RIGHT: usize = 1;

/// What an as-of join reads and makes.
#[derive(Debug, Clone)]
pub struct AsofPlan {
    /// The rows: result columns, join keys, time, and behind them their names if they are not source rows.
    pub left: SchemaRef,
    /// The versions: result columns, join keys, the mark of a deletion if there are any, time.
    pub right: SchemaRef,
    /// Result columns of the rows.
    pub left_width: usize,
    /// Result columns of the versions.
    pub right_width: usize,
    /// Join keys on either side, of equal types.
    pub keys: usize,
    /// The rows are results of another operator, which carry their names and may be taken back.
    pub left_derived: bool,
    /// Versions may delete.
    pub deletions: bool,
    /// A version counts from the moment after its time.
    pub strict: bool,
    /// How far behind its partition's watermark a source row may come.
    pub lateness_us: Micros,
    /// The sources whose tokens may arrive.
    pub sources: Vec<SourceId>,
    /// What sources are called in the names of rows.
    pub source_names: Vec<(SourceId, String)>,
}

/// The columns that name a row of the result, behind all others: source, partition, offset of the left side.
pub fn name_fields() -> [Field; 3] {
    [
        Field::new("__source", DataType::Utf8View, true),
        Field::new("__partition", DataType::Int32, true),
        Field::new("__offset", DataType::Int64, true),
    ]
}

impl AsofPlan {
    /// The columns of the results.
    pub fn output(&self) -> SchemaRef {
        let left = self.left.fields().iter().take(self.left_width).map(|field| field.as_ref().clone());
        let right = self.right.fields().iter().take(self.right_width).map(|field| field.as_ref().clone());
        let all = left.chain(right).map(|field| field.with_nullable(true)).chain(name_fields());
        Arc::new(arrow::datatypes::Schema::new(all.collect::<Vec<_>>()))
    }
}

/// Columns in Arrow's row format.
type Row = Arc<[u8]>;
/// A row's result: its own columns, and its match's.
type Joined = (Row, Option<Row>);

/// What names a row: partition, offset, and the number of its source's name.
type Name = (i32, i64, u32);

/// A row that waits for its time.
#[derive(Debug, Clone, Default)]
struct Parked {
    /// `None`: taken back, and only here because a result of it is out.
    row: Option<Row>,
    /// The result that the end of a bounded run has published.
    published: Option<Joined>,
    /// One a source.
    tokens: Vec<i64>,
}

/// One key's versions and waiting rows.
#[derive(Debug, Default)]
struct Entry {
    versions: Versions,
    parked: BTreeMap<(Micros, Name), Parked>,
}

/// Publication to publish.
#[derive(Default)]
struct Publication {
    old: Vec<(Joined, Name)>,
    new: Vec<(Joined, Name)>,
    /// One column a source.
    tokens: Vec<Vec<i64>>,
}

/// See the module doc.
pub struct Asof {
    plan: AsofPlan,
    output: SchemaRef,
    codec: Arc<KeyCodec>,
    left_rows: RowConverter,
    right_rows: RowConverter,
    groups: Groups,
    /// One a group.
    entries: Vec<Entry>,
    /// (time, group) of waiting rows.
    due: BTreeSet<(Micros, u32)>,
    /// (time, group) of versions that may make older ones needless once the watermark has passed them.
    passing: BTreeSet<(Micros, u32)>,
    /// Names of sources, by number.
    names: Vec<String>,
    dirty_parked: BTreeSet<(u32, Micros, Name)>,
    dirty_versions: BTreeSet<(u32, Place)>,
    /// Groups that have lost all they had; they are forgotten once that is written.
    emptied: BTreeSet<u32>,
    expired_below: Option<Micros>,
    bytes: usize,
}

fn wrong() -> Error {
    Error::failed("an as-of join does not have the columns that it was planned with")
}

fn converter(fields: &[FieldRef], width: usize) -> Result<RowConverter> {
    let fields = fields.get(..width).ok_or_else(wrong)?;
    Ok(RowConverter::new(fields.iter().map(|field| SortField::new(field.data_type().clone())).collect())?)
}

impl Asof {
    /// An as-of join of this plan.
    pub fn new(plan: AsofPlan) -> Result<Self> {
        let keys = plan.left.fields().get(plan.left_width..plan.left_width + plan.keys).ok_or_else(wrong)?.to_vec();
        let codec = Arc::new(KeyCodec::new(keys)?);
        Ok(Self {
            output: plan.output(),
            left_rows: converter(plan.left.fields(), plan.left_width)?,
            right_rows: converter(plan.right.fields(), plan.right_width)?,
            groups: Groups::new(Arc::clone(&codec)),
            codec,
            entries: Vec::new(),
            due: BTreeSet::new(),
            passing: BTreeSet::new(),
            names: Vec::new(),
            dirty_parked: BTreeSet::new(),
            dirty_versions: BTreeSet::new(),
            emptied: BTreeSet::new(),
            expired_below: None,
            bytes: 0,
            plan,
        })
    }

    /// The number of a source's name.
    fn name_number(&mut self, name: &str) -> u32 {
        let known = self.names.iter().position(|each| each == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        }) as u32
    }

    fn entry(&mut self, slot: u32) -> &mut Entry {
        let slot = slot as usize;
        if self.entries.len() <= slot {
            self.entries.resize_with(slot + 1, Entry::default);
        }
        &mut self.entries[slot]
    }

    /// The result of a waiting row now, if it differs from the one that is out or settles something. What the match reads is settled.
    fn resolve(&mut self, slot: u32, at: (Micros, Name), results: &mut Publication, out: &mut Output) {
        let (strict, sources) = (self.plan.strict, &self.plan.sources);
        let Some(entry) = self.entries.get_mut(slot as usize) else { return };
        let Some(parked) = entry.parked.get_mut(&at) else { return };
        let Some(row) = parked.row.clone() else {
            // Taken back: so is its result.
            for (source, tokens) in sources.iter().zip(std::mem::take(&mut parked.tokens)) {
                release(&mut out.counts, Fate::Filtered, *source, tokens);
            }
            results.old.extend(parked.published.take().map(|old| (old, at.1)));
            return;
        };
        let mut tokens = std::mem::replace(&mut parked.tokens, vec![0; sources.len()]);
        tokens.resize(sources.len(), 0);
        let mut matched = None;
        if let Some((place, version)) = entry.versions.at(at.0, strict) {
            if version.waits != 0 {
                self.dirty_versions.insert((slot, place));
            }
            let waits = std::mem::take(&mut version.waits);
            match &version.row {
                Some(row) => {
                    matched = Some(Arc::clone(row));
                    if let Some(at) = sources.iter().position(|source| *source == place.source) {
                        tokens[at] += waits;
                    }
                }
                // It has told the result that there is nothing.
                None => release(&mut out.counts, Fate::Out, place.source, waits),
            }
        }
        let joined = (row, matched);
        if parked.published.as_ref() == Some(&joined) && tokens.iter().all(|tokens| *tokens == 0) {
            return;
        }
        results.old.extend(parked.published.replace(joined.clone()).map(|old| (old, at.1)));
        results.new.push((joined, at.1));
        results.tokens.resize(sources.len(), Vec::new());
        results.tokens.iter_mut().zip(tokens).for_each(|(column, tokens)| column.push(tokens));
    }

    /// The rows of a group that wait for `time`.
    fn waiting(&self, slot: u32, time: Micros) -> Vec<(Micros, Name)> {
        let all = (time, (i32::MIN, i64::MIN, 0))..=(time, (i32::MAX, i64::MAX, u32::MAX));
        self.entries.get(slot as usize).map(|entry| entry.parked.range(all).map(|(at, _)| *at).collect()).unwrap_or_default()
    }

    /// Publishes the rows that the watermark has passed, and lets them go.
    fn release_rows(&mut self, watermark: Micros, out: &mut Output) -> Result<()> {
        let mut results = Publication::default();
        while let Some((time, slot)) = self.due.first().copied().filter(|(time, _)| *time < watermark) {
            self.due.remove(&(time, slot));
            for at in self.waiting(slot, time) {
                self.resolve(slot, at, &mut results, out);
                self.let_go(slot, at);
            }
        }
        self.publish(results, out)
    }

    fn let_go(&mut self, slot: u32, at: (Micros, Name)) {
        if let Some(gone) = self.entry(slot).parked.remove(&at) {
            self.bytes = self.bytes.saturating_sub(state::parked_bytes(&gone));
        }
        self.forget_if_empty(slot);
    }

    fn is_empty(&self, slot: u32) -> bool {
        self.entries.get(slot as usize).is_none_or(|entry| entry.parked.is_empty() && entry.versions.is_empty())
    }

    fn forget_if_empty(&mut self, slot: u32) {
        if self.is_empty(slot) {
            self.emptied.insert(slot);
        }
    }

    /// Drops the versions that no row to come can meet.
    fn prune(&mut self, watermark: Micros, out: &mut Output) {
        while let Some((time, slot)) = self.passing.first().copied().filter(|(time, _)| *time < watermark) {
            self.passing.remove(&(time, slot));
            let Some(entry) = self.entries.get_mut(slot as usize) else { continue };
            for (place, version) in entry.versions.prune(watermark) {
                release(&mut out.counts, Fate::Filtered, place.source, version.waits);
                self.bytes = self.bytes.saturating_sub(state::version_bytes(&version));
                self.dirty_versions.insert((slot, place));
            }
            self.forget_if_empty(slot);
        }
    }

    fn publish(&self, results: Publication, out: &mut Output) -> Result<()> {
        self.emit(&results.old, -1, Tokens::none(), out)?;
        let tokens = hand_on(&mut out.counts, &self.plan.sources, results.tokens);
        self.emit(&results.new, 1, tokens, out)
    }

    fn emit(&self, rows: &[(Joined, Name)], weight: i64, tokens: Tokens, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut columns = decode(&self.left_rows, self.plan.left_width, rows.iter().map(|((left, _), _)| left))?;
        let matches: Vec<Option<&Row>> = rows.iter().map(|((_, right), _)| right.as_ref()).collect();
        columns.extend(decode_some(&self.right_rows, self.plan.right.fields(), self.plan.right_width, &matches)?);
        let source = |number: u32| self.names.get(number as usize).map(String::as_str);
        columns.push(Arc::new(rows.iter().map(|(_, name)| source(name.2)).collect::<StringViewArray>()));
        columns.push(Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, name)| name.0))));
        columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, name)| name.1))));
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?;
        out.emit(Rows::derived(batch, (weight != 1).then(|| vec![weight; rows.len()].into()), tokens));
        Ok(())
    }
}

/// Rows as columns; without columns none.
fn decode<'a>(converter: &RowConverter, width: usize, rows: impl Iterator<Item = &'a Row>) -> Result<Vec<ArrayRef>> {
    if width == 0 {
        return Ok(Vec::new());
    }
    let parser = converter.parser();
    Ok(converter.convert_rows(rows.map(|row| parser.parse(row)))?)
}

/// The same with NULLs where there is no row.
fn decode_some(converter: &RowConverter, fields: &[FieldRef], width: usize, rows: &[Option<&Row>]) -> Result<Vec<ArrayRef>> {
    let there: Vec<&Row> = rows.iter().copied().flatten().collect();
    let fields = fields.iter().take(width);
    if there.is_empty() {
        return Ok(fields.map(|field| new_null_array(field.data_type(), rows.len())).collect());
    }
    let all = there.len() == rows.len();
    let columns = decode(converter, width, there.into_iter())?;
    if all {
        return Ok(columns);
    }
    let mut next = 0;
    let mut places = Vec::with_capacity(rows.len());
    for row in rows {
        places.push(if row.is_some() { (0, next) } else { (1, 0) });
        next += usize::from(row.is_some());
    }
    let spread = |(column, field): (ArrayRef, &FieldRef)| {
        Ok(interleave(&[column.as_ref(), new_null_array(field.data_type(), 1).as_ref()], &places)?)
    };
    columns.into_iter().zip(fields).map(spread).collect()
}

impl Operator for Asof {
    fn name(&self) -> &'static str {
        "asof"
    }

    fn on_rows(&mut self, port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        match port {
            _ if rows.is_empty() => Ok(()),
            LEFT => self.take_rows(&rows, out),
            _ => self.take_versions(&rows, out),
        }
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        if let Some(watermark) = watermark.filter(|watermark| *watermark != BEGINNING) {
            self.release_rows(watermark, out)?;
            self.prune(watermark, out);
            self.expired_below = self.expired_below.max(Some(watermark - 1));
        }
        Ok(())
    }

    fn on_end(&mut self, out: &mut Output) -> Result<()> {
        let mut results = Publication::default();
        for (time, slot) in self.due.clone() {
            for at in self.waiting(slot, time) {
                self.resolve(slot, at, &mut results, out);
                self.dirty_parked.insert((slot, at.0, at.1));
                if self.entry(slot).parked.get(&at).is_some_and(|parked| parked.row.is_none()) {
                    self.let_go(slot, at);
                }
            }
        }
        self.publish(results, out)
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![self.versions_table(), self.parked_table()]
    }

    fn changes(&mut self, table: usize, full: bool) -> Result<Changes> {
        if table == 0 { self.changed_versions(full) } else { self.changed_rows(full) }
    }

    fn load(&mut self, table: usize, rows: &RecordBatch) -> Result<()> {
        if table == 0 { self.load_versions(rows) } else { self.load_rows(rows) }
    }

    fn state_bytes(&self) -> usize {
        self.groups.bytes() + self.bytes + self.entries.capacity() * std::mem::size_of::<Entry>()
    }
}

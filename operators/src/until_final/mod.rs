//! `UntilFinal`: holds windowed results back until nothing in time can revise them any more, then lets each go once.
//!
//! Always: a row goes out when the watermark has reached its window's end plus the delay, and is never revised after that; what is
//! retracted before goes out never. A closing publish lets nothing go: time has not ended. Rows are held by key, one a key and window:
//! an update may bring the new row before or behind the retraction of the old one. Its input is exchanged by the key, that of sessions
//! without the window. The planner puts it in front of a sink that can't take results back.

#[cfg(test)]
mod model_tests;
mod state;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows as RowBytes, SortField};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::{Operator, Output};
use tidemill_engine::rows::{Rows, SourceId, Tokens};
use tidemill_engine::state::{Changes, Scalars, TableSpec};
use tidemill_engine::time::{Micros, Watermark};

use crate::tokens::{hand_on, release};

/// Rows in one batch that goes out.
const ROWS_PER_BATCH: usize = 8192;

/// What is held and for how long. Columns are indexes into the input.
#[derive(Debug, Clone)]
pub struct Holding {
    /// What tells results apart, the window among it or not.
    pub key: Vec<usize>,
    /// The end of a row's window.
    pub window_end: usize,
    /// How long after it a result may still be revised.
    pub delay_us: Micros,
    /// Of sessions: the key without the window. A session that grows is a new result in place of the old one, whose tokens go on with it.
    pub session: Option<Vec<usize>>,
    /// The columns of the input, and of what goes out.
    pub input: SchemaRef,
    /// The sources whose tokens may arrive.
    pub sources: Vec<SourceId>,
}

/// When a row may go, and its key: the order in which rows go out, and their place in the state.
type Name = (Micros, Box<[u8]>);

/// What is held of one key.
#[derive(Debug, Clone)]
struct Held {
    hash: u64,
    /// Its newest row.
    row: Box<[u8]>,
    /// Rows that came less those taken back: 0 or 1 once a tick is over.
    count: i64,
    /// One a source.
    tokens: Vec<i64>,
}

/// See the module doc.
pub struct UntilFinal {
    plan: Holding,
    /// All columns of a row.
    row: RowConverter,
    /// Its key columns.
    key: RowConverter,
    held: BTreeMap<Name, Held>,
    /// State rows to write or, where they are gone, to delete.
    changed: BTreeSet<(Name, u64)>,
    /// Sessions that came and that were taken back in this tick, by the key without the window.
    came: HashMap<Box<[u8]>, Vec<Name>>,
    lost: Vec<(Box<[u8]>, Name)>,
    bytes: usize,
    expired_below: Option<Micros>,
}

impl UntilFinal {
    /// Holds rows by this plan.
    pub fn new(plan: Holding) -> Result<Self> {
        let fields = plan.input.fields();
        let sort = |index: usize| {
            let field =
                fields.get(index).ok_or_else(|| Error::failed(format!("results are held by column {index}, which they don't have")))?;
            Ok(SortField::new(field.data_type().clone()))
        };
        let key = RowConverter::new(plan.key.iter().map(|index| sort(*index)).collect::<Result<Vec<_>>>()?)?;
        let row = RowConverter::new((0..fields.len()).map(sort).collect::<Result<Vec<_>>>()?)?;
        Ok(Self {
            plan,
            row,
            key,
            held: BTreeMap::new(),
            changed: BTreeSet::new(),
            came: HashMap::new(),
            lost: Vec::new(),
            bytes: 0,
            expired_below: None,
        })
    }

    /// The columns that the input is exchanged by.
    fn owners(plan: &Holding) -> &[usize] {
        plan.session.as_deref().unwrap_or(&plan.key)
    }

    /// When each row may go.
    fn due(&self, columns: &[ArrayRef]) -> Result<Vec<Micros>> {
        let end = columns.get(self.plan.window_end).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let end = end.ok_or_else(|| Error::failed("a result to hold has no window"))?;
        Ok(end.values().iter().map(|end| end.saturating_add(self.plan.delay_us)).collect())
    }

    fn take(&mut self, rows: &Rows, out: &mut Output) -> Result<()> {
        let columns = rows.batch.columns();
        let (keys, due) = (picked(columns, &self.plan.key)?, self.due(columns)?);
        let hashes = match &rows.hashes {
            Some(hashes) => Arc::clone(hashes),
            None => hash_columns(&picked(columns, Self::owners(&self.plan))?, rows.len())?.into(),
        };
        let (names, contents) = (self.key.convert_columns(&keys)?, self.row.convert_columns(columns)?);
        let sessions = self.sessions(columns)?;
        for (row, hash) in hashes.iter().enumerate() {
            let name: Name = (due[row], names.row(row).data().into());
            let weight = rows.weight(row);
            let tokens: Vec<i64> = self.plan.sources.iter().map(|source| rows.tokens.of(*source, row)).collect();
            for (source, tokens) in self.plan.sources.iter().zip(&tokens) {
                out.counts.hold(*source, *tokens);
            }
            if let Some(of) = sessions.as_ref().map(|sessions| Box::from(sessions.row(row).data())) {
                match weight > 0 {
                    true => self.came.entry(of).or_default().push(name.clone()),
                    false => self.lost.push((of, name.clone())),
                }
            }
            self.change(name, *hash, contents.row(row).data(), weight, tokens);
        }
        Ok(())
    }

    /// What tells the keys of sessions apart, if the input has sessions.
    fn sessions(&self, columns: &[ArrayRef]) -> Result<Option<RowBytes>> {
        let Some(session) = &self.plan.session else { return Ok(None) };
        let keys = picked(columns, session)?;
        if keys.is_empty() {
            // All sessions are of one key.
            let one: ArrayRef = Arc::new(BooleanArray::from(vec![true; columns.first().map_or(0, |column| column.len())]));
            return Ok(Some(RowConverter::new(vec![SortField::new(DataType::Boolean)])?.convert_columns(&[one])?));
        }
        let fields = keys.iter().map(|column| SortField::new(column.data_type().clone())).collect();
        Ok(Some(RowConverter::new(fields)?.convert_columns(&keys)?))
    }

    /// Gives the tokens of sessions taken back in this tick to the session of the same key that came for it: the next one to end.
    fn hand_to_successors(&mut self) {
        let came = std::mem::take(&mut self.came);
        for (of, name) in std::mem::take(&mut self.lost) {
            let gone = self.held.get(&name).is_some_and(|held| held.count == 0);
            let there = |next: &&Name| next.0 >= name.0 && **next != name && self.held.get(*next).is_some_and(|held| held.count > 0);
            let Some(next) = came.get(&of).filter(|_| gone).and_then(|came| came.iter().filter(there).min().cloned()) else { continue };
            if let Some(held) = self.held.remove(&name) {
                self.bytes = self.bytes.saturating_sub(cost(&name, &held.row));
                if let Some(to) = self.held.get_mut(&next) {
                    to.tokens.iter_mut().zip(&held.tokens).for_each(|(to, more)| *to += more);
                    self.changed.insert((next, to.hash));
                }
                self.changed.insert((name, held.hash));
            }
        }
    }

    fn change(&mut self, name: Name, hash: u64, row: &[u8], weight: i64, tokens: Vec<i64>) {
        let fresh = || Held { hash, row: Box::default(), count: 0, tokens: vec![0; tokens.len()] };
        let mut held = match self.held.remove(&name) {
            Some(held) => {
                self.bytes = self.bytes.saturating_sub(cost(&name, &held.row));
                held
            }
            None => fresh(),
        };
        held.count += weight;
        held.tokens.iter_mut().zip(&tokens).for_each(|(held, more)| *held += more);
        if weight > 0 {
            held.row = row.into();
        }
        if held.count == 0 {
            // Only its tokens wait, if there are any, for a row that may come again.
            held.row = Box::default();
        }
        self.changed.insert((name.clone(), hash));
        if held.count != 0 || held.tokens.iter().any(|tokens| *tokens != 0) {
            self.bytes += cost(&name, &held.row);
            self.held.insert(name, held);
        }
    }

    /// Lets go what nothing can revise any more.
    fn let_go(&mut self, watermark: Micros, out: &mut Output) -> Result<()> {
        let later = match watermark.checked_add(1) {
            Some(next) => self.held.split_off(&(next, Box::default())),
            None => BTreeMap::new(),
        };
        let gone = std::mem::replace(&mut self.held, later);
        let mut rows: Vec<Held> = Vec::with_capacity(gone.len().min(ROWS_PER_BATCH));
        for (name, held) in gone {
            self.bytes = self.bytes.saturating_sub(cost(&name, &held.row));
            // The state rows expire by themselves.
            self.changed.remove(&(name, held.hash));
            if held.count > 0 {
                rows.push(held);
                if rows.len() == ROWS_PER_BATCH {
                    self.emit(std::mem::take(&mut rows), out)?;
                }
            } else {
                for (source, tokens) in self.plan.sources.iter().zip(held.tokens) {
                    release(&mut out.counts, Fate::Filtered, *source, tokens);
                }
            }
        }
        self.expired_below = self.expired_below.max(Some(watermark));
        self.emit(rows, out)
    }

    fn emit(&self, rows: Vec<Held>, out: &mut Output) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let parser = self.row.parser();
        let columns = self.row.convert_rows(rows.iter().map(|held| parser.parse(&held.row)))?;
        let batch = RecordBatch::try_new(Arc::clone(&self.plan.input), columns)?;
        let column = |place: usize| rows.iter().map(|held| held.tokens.get(place).copied().unwrap_or(0)).collect();
        let tokens = (0..self.plan.sources.len()).map(column).collect();
        let weights = if rows.iter().all(|held| held.count == 1) { None } else { Some(rows.iter().map(|held| held.count).collect()) };
        let tokens: Tokens = hand_on(&mut out.counts, &self.plan.sources, tokens);
        out.emit(Rows::derived(batch, weights, tokens));
        Ok(())
    }
}

/// Bytes of what is held of a key, roughly.
fn cost(name: &Name, row: &[u8]) -> usize {
    name.1.len() + row.len() + 160
}

fn picked(columns: &[ArrayRef], which: &[usize]) -> Result<Vec<ArrayRef>> {
    let column = |index: &usize| columns.get(*index).cloned().ok_or_else(|| Error::failed("a held result lacks a key column"));
    which.iter().map(column).collect()
}

impl Operator for UntilFinal {
    fn name(&self) -> &'static str {
        "until_final"
    }

    fn on_rows(&mut self, _port: usize, rows: Rows, out: &mut Output) -> Result<()> {
        if rows.is_empty() { Ok(()) } else { self.take(&rows, out) }
    }

    fn on_tick(&mut self, watermark: Watermark, out: &mut Output) -> Result<()> {
        out.watermark = watermark;
        self.hand_to_successors();
        match watermark {
            Some(watermark) => self.let_go(watermark, out),
            None => Ok(()),
        }
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

    fn scalars(&self) -> Scalars {
        Scalars::new()
    }

    fn state_bytes(&self) -> usize {
        self.bytes
    }
}

//! The state tables of a join, `left` and `right`: one row a held row.
//!
//! Source rows: `_hash`, join keys, `time`, `source` (its name), `partition`, `offset` | `count`, `matches`, `shown`, `tokens_<source>`…, what
//! is kept of the row, `_expires`. Derived rows: `_hash`, join keys, `time`, what is kept of the row | the rest. They leave without a word once
//! nothing can match them any more.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::state::{Changes, TableSpec};

use super::side::{At, Held, Removed};
use super::{Join, RIGHT};
use crate::judge::event_times;

/// Rows a batch of a full table.
const ROWS_PER_BATCH: usize = 65_536;

fn wrong() -> Error {
    Error::failed("a stored join has a wrong column")
}

fn ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

impl Join {
    fn derived(&self, side: usize) -> bool {
        self.plan.sides[side].names.is_some()
    }

    pub(super) fn table(&self, side: usize) -> TableSpec {
        let named = |(number, field): (usize, &arrow::datatypes::FieldRef)| {
            Field::new(format!("row_{number}_{}", field.name()), field.data_type().clone(), true)
        };
        let row = || self.fields[side].iter().enumerate().map(named);
        let join_keys = self.codec.fields().iter().enumerate();
        let mut keys: Vec<Field> =
            join_keys.map(|(number, key)| Field::new(format!("key_{number}"), key.data_type().clone(), true)).collect();
        keys.push(Field::new("time", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), false));
        let mut values = Vec::new();
        if self.derived(side) {
            keys.extend(row());
        } else {
            keys.extend([
                Field::new("source", DataType::Utf8View, false),
                Field::new("partition", DataType::Int32, false),
                Field::new("offset", DataType::Int64, false),
            ]);
        }
        values.extend([
            Field::new("count", DataType::Int64, false),
            Field::new("matches", DataType::Int64, false),
            Field::new("shown", DataType::Boolean, false),
        ]);
        values.extend(self.plan.sources.iter().map(|source| Field::new(format!("tokens_{source}"), DataType::Int64, false)));
        if !self.derived(side) {
            values.extend(row());
        }
        TableSpec::new(if side == RIGHT { "right" } else { "left" }, keys, values, true)
    }

    pub(super) fn changes_of(&mut self, side: usize, full: bool) -> Result<Changes> {
        let (rows, removed) = self.sides[side].changed(full);
        let table = self.table(side);
        let upserts = rows.chunks(ROWS_PER_BATCH).map(|slots| self.encoded(&table, side, slots)).collect::<Result<Vec<_>>>()?;
        let mut deletes = Vec::new();
        if !removed.is_empty() {
            deletes.push(RecordBatch::try_new(table.key_schema(), self.removed_keys(side, &removed)?)?);
        }
        // The second table is the last to name a group.
        if side == RIGHT {
            for group in std::mem::take(&mut self.emptied) {
                if self.is_empty(group) && self.groups.holds(group) {
                    self.groups.remove(group);
                }
            }
        }
        Ok(Changes { upserts, deletes, expired_below: self.expired_below, full })
    }

    /// `_hash`, join keys, `time`.
    fn group_columns(&self, groups: &[u32], times: impl Iterator<Item = i64>) -> Result<Vec<ArrayRef>> {
        let mut columns = vec![ints(groups.iter().map(|group| self.groups.hash(*group) as i64))];
        columns.extend(self.groups.columns(groups)?);
        columns.push(Arc::new(TimestampMicrosecondArray::from_iter_values(times)));
        Ok(columns)
    }

    fn removed_keys(&self, side: usize, removed: &[Removed]) -> Result<Vec<ArrayRef>> {
        let groups: Vec<u32> = removed.iter().map(|row| row.group).collect();
        let mut columns = self.group_columns(&groups, removed.iter().map(|row| row.time))?;
        if !self.derived(side) {
            columns.push(Arc::new(removed.iter().map(|row| Some(self.source_name(row.at.source))).collect::<StringViewArray>()));
            columns.push(Arc::new(Int32Array::from_iter_values(removed.iter().map(|row| row.at.partition))));
            columns.push(ints(removed.iter().map(|row| row.at.offset)));
        } else if !self.fields[side].is_empty() {
            let parser = self.rows[side].parser();
            columns.extend(self.rows[side].convert_rows(removed.iter().map(|row| parser.parse(&row.row)))?);
        }
        Ok(columns)
    }

    fn encoded(&self, table: &TableSpec, side: usize, slots: &[u32]) -> Result<RecordBatch> {
        let held: Vec<&Held> = slots.iter().map(|slot| self.sides[side].held(*slot)).collect();
        let groups: Vec<u32> = held.iter().map(|held| held.group).collect();
        let mut columns = self.group_columns(&groups, held.iter().map(|held| held.time))?;
        let row = self.decoded(side, slots.iter().copied())?;
        if self.derived(side) {
            columns.extend(row.iter().cloned());
        } else {
            columns.extend(self.places(side, slots));
        }
        columns.push(ints(held.iter().map(|held| held.count)));
        columns.push(ints(held.iter().map(|held| held.matches)));
        columns.push(Arc::new(held.iter().map(|held| Some(held.shown)).collect::<BooleanArray>()));
        for place in 0..self.plan.sources.len() {
            columns.push(ints(slots.iter().map(|slot| self.sides[side].token(*slot, place))));
        }
        if !self.derived(side) {
            columns.extend(row);
        }
        columns.push(ints(held.iter().map(|held| self.expiry(side, held.time))));
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    pub(super) fn load_side(&mut self, side: usize, rows: &RecordBatch) -> Result<()> {
        let mut rest = rows.columns();
        let mut next = |count: usize| -> Result<&[ArrayRef]> {
            let (now, later) = rest.split_at_checked(count).ok_or_else(wrong)?;
            rest = later;
            Ok(now)
        };
        let int = |columns: &[ArrayRef]| -> Result<Int64Array> {
            columns.first().and_then(|column| column.as_primitive_opt::<Int64Type>()).cloned().ok_or_else(wrong)
        };
        let width = self.fields[side].len();
        let hashes: Vec<u64> = int(next(1)?)?.values().iter().map(|hash| *hash as u64).collect();
        let keys = self.codec.encode(next(self.plan.keys)?)?;
        let times = event_times(next(1)?.first().ok_or_else(wrong)?)?.clone();
        let mut row = if self.derived(side) { next(width)? } else { &[] };
        let mut places = None;
        if !self.derived(side) {
            let [sources, partitions, offsets] = next(3)? else { return Err(wrong()) };
            let sources = sources.as_string_view_opt().ok_or_else(wrong)?;
            let partitions = partitions.as_primitive_opt::<Int32Type>().ok_or_else(wrong)?;
            places = Some((sources, partitions, offsets.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?));
        }
        let (counts, matches) = (int(next(1)?)?, int(next(1)?)?);
        let shown = next(1)?.first().and_then(|column| column.as_boolean_opt()).ok_or_else(wrong)?;
        let tokens = self.plan.sources.iter().map(|_| int(next(1)?)).collect::<Result<Vec<_>>>()?;
        if !self.derived(side) {
            row = next(width)?;
        }
        let contents = (width > 0).then(|| self.rows[side].convert_columns(row)).transpose()?;
        let mut groups = Vec::new();
        self.groups.insert(&keys, &hashes, None, &mut groups);
        for (at, group) in groups.into_iter().enumerate() {
            let place = match &places {
                Some((sources, partitions, offsets)) => {
                    let known = self.plan.source_names.iter().find(|(_, name)| name == sources.value(at));
                    let source = known.map(|(source, _)| *source as u32).ok_or_else(wrong)?;
                    At { partition: partitions.value(at), source, offset: offsets.value(at) }
                }
                None => At::default(),
            };
            let content: &[u8] = contents.as_ref().map_or(&[], |contents| contents.row(at).data());
            let mut held = Held::new(times.value(at), group, content, place);
            (held.count, held.matches, held.shown) = (counts.value(at), matches.value(at), shown.value(at));
            let slot = self.sides[side].add(held);
            for (place, tokens) in tokens.iter().enumerate() {
                self.sides[side].add_tokens(slot, place, tokens.value(at));
            }
            let expiry = self.expiry(side, times.value(at));
            self.sides[side].link(slot, expiry);
            self.sides[side].restored(slot);
        }
        Ok(())
    }
}

//! The state tables of `Asof`.
//!
//! `versions`: `_hash`, join keys, `time`, `partition`, `offset`, `source` | `deleted`, `tokens`, the version's columns.
//! `parked`: `_hash`, join keys, `time`, `source` (its name), `partition`, `offset` | `there`, `published`, `matched`, `tokens_<source>`…, the
//! row's columns, its match's as published, and where rows may be taken back the row's as published; `_expires` is the time, so rows that
//! were released leave without a word.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, PrimitiveArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int32Type, Int64Type};
use arrow::row::Rows as RowBytes;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::rows::SourceId;
use tidemill_engine::state::{Changes, TableSpec};
use tidemill_engine::time::Micros;

use super::versions::{Place, Version};
use super::{Asof, Joined, Name, Parked, Row, decode_some};

/// Rows a batch of a full table.
const ROWS_PER_BATCH: usize = 65_536;

pub(super) fn version_bytes(version: &Version) -> usize {
    std::mem::size_of::<(Place, Version)>() * 2 + version.row.as_ref().map_or(0, |row| row.len() + 16)
}

/// Without what is published: its columns are those of a version, or the row's own.
pub(super) fn parked_bytes(parked: &Parked) -> usize {
    std::mem::size_of::<(Micros, Name, Parked)>() * 2 + parked.row.as_ref().map_or(0, |row| row.len() + 16) + parked.tokens.len() * 8
}

fn wrong() -> Error {
    Error::failed("a stored as-of join has a wrong column")
}

fn named(prefix: &str, fields: &[FieldRef], width: usize) -> Vec<Field> {
    fields.iter().take(width).map(|field| Field::new(format!("{prefix}{}", field.name()), field.data_type().clone(), true)).collect()
}

fn ints(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

/// Reads columns one after the other.
struct Columns<'a>(&'a [ArrayRef]);

impl<'a> Columns<'a> {
    fn some(&mut self, count: usize) -> Result<&'a [ArrayRef]> {
        let (now, later) = self.0.split_at_checked(count).ok_or_else(wrong)?;
        self.0 = later;
        Ok(now)
    }

    fn one(&mut self) -> Result<&'a ArrayRef> {
        self.some(1)?.first().ok_or_else(wrong)
    }

    fn ints(&mut self) -> Result<&'a PrimitiveArray<Int64Type>> {
        self.one()?.as_primitive_opt().ok_or_else(wrong)
    }

    fn flags(&mut self) -> Result<&'a BooleanArray> {
        self.one()?.as_boolean_opt().ok_or_else(wrong)
    }
}

fn row(contents: Option<&RowBytes>, at: usize) -> Row {
    contents.map_or_else(|| Row::from(&[][..]), |contents| Row::from(contents.row(at).data()))
}

impl Asof {
    pub(super) fn versions_table(&self) -> TableSpec {
        let mut keys = named("key_", self.codec.fields(), self.plan.keys);
        keys.push(Field::new("time", DataType::Int64, false));
        keys.push(Field::new("partition", DataType::Int32, false));
        keys.extend(["offset", "source"].map(|name| Field::new(name, DataType::Int64, false)));
        let mut values = vec![Field::new("deleted", DataType::Boolean, false), Field::new("tokens", DataType::Int64, false)];
        values.extend(named("row_", self.plan.right.fields(), self.plan.right_width));
        TableSpec::new("versions", keys, values, false)
    }

    pub(super) fn parked_table(&self) -> TableSpec {
        let mut keys = named("key_", self.codec.fields(), self.plan.keys);
        keys.extend([
            Field::new("time", DataType::Int64, false),
            Field::new("source", DataType::Utf8View, false),
            Field::new("partition", DataType::Int32, false),
            Field::new("offset", DataType::Int64, false),
        ]);
        let mut values: Vec<Field> = ["there", "published", "matched"].map(|name| Field::new(name, DataType::Boolean, false)).to_vec();
        values.extend(self.plan.sources.iter().map(|source| Field::new(format!("tokens_{source}"), DataType::Int64, false)));
        values.extend(named("row_", self.plan.left.fields(), self.plan.left_width));
        values.extend(named("match_", self.plan.right.fields(), self.plan.right_width));
        if self.plan.left_derived {
            values.extend(named("was_", self.plan.left.fields(), self.plan.left_width));
        }
        TableSpec::new("parked", keys, values, true)
    }

    fn version_keys(&self, rows: &[(u32, Place)]) -> Result<Vec<ArrayRef>> {
        let slots: Vec<u32> = rows.iter().map(|(slot, _)| *slot).collect();
        let mut columns = vec![ints(slots.iter().map(|slot| self.groups.hash(*slot) as i64))];
        columns.extend(self.groups.columns(&slots)?);
        columns.push(ints(rows.iter().map(|(_, place)| place.time)));
        columns.push(Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, place)| place.partition))));
        columns.push(ints(rows.iter().map(|(_, place)| place.offset)));
        columns.push(ints(rows.iter().map(|(_, place)| place.source as i64)));
        Ok(columns)
    }

    pub(super) fn changed_versions(&mut self, full: bool) -> Result<Changes> {
        let dirty = std::mem::take(&mut self.dirty_versions);
        let of = |slot: u32, place: &Place| self.entries.get(slot as usize).and_then(|entry| entry.versions.get(place));
        let (mut kept, mut gone): (Vec<(u32, Place)>, Vec<_>) = dirty.into_iter().partition(|(slot, place)| of(*slot, place).is_some());
        if full {
            gone.clear();
            let all = (0..).zip(&self.entries);
            kept = all.flat_map(|(slot, entry)| entry.versions.places().map(move |place| (slot, place))).collect();
        }
        let table = self.versions_table();
        let mut upserts = Vec::new();
        for rows in kept.chunks(ROWS_PER_BATCH) {
            let versions: Vec<&Version> = rows.iter().filter_map(|(slot, place)| of(*slot, place)).collect();
            let mut columns = self.version_keys(rows)?;
            columns.push(flags(versions.iter().map(|version| version.row.is_none())));
            columns.push(ints(versions.iter().map(|version| version.waits)));
            let contents: Vec<Option<&Row>> = versions.iter().map(|version| version.row.as_ref()).collect();
            columns.extend(decode_some(&self.right_rows, self.plan.right.fields(), self.plan.right_width, &contents)?);
            upserts.push(RecordBatch::try_new(Arc::clone(&table.schema), columns)?);
        }
        let mut deletes = Vec::new();
        if !gone.is_empty() {
            deletes.push(RecordBatch::try_new(table.key_schema(), self.version_keys(&gone)?)?);
        }
        Ok(Changes { upserts, deletes, full, ..Changes::default() })
    }

    fn parked_keys(&self, rows: &[(u32, Micros, Name)]) -> Result<Vec<ArrayRef>> {
        let slots: Vec<u32> = rows.iter().map(|(slot, ..)| *slot).collect();
        let mut columns = vec![ints(slots.iter().map(|slot| self.groups.hash(*slot) as i64))];
        columns.extend(self.groups.columns(&slots)?);
        columns.push(ints(rows.iter().map(|(_, time, _)| *time)));
        let source = |number: u32| self.names.get(number as usize).map_or("", String::as_str);
        columns.push(Arc::new(rows.iter().map(|(_, _, name)| Some(source(name.2))).collect::<StringViewArray>()));
        columns.push(Arc::new(Int32Array::from_iter_values(rows.iter().map(|(_, _, name)| name.0))));
        columns.push(ints(rows.iter().map(|(_, _, name)| name.1)));
        Ok(columns)
    }

    pub(super) fn changed_rows(&mut self, full: bool) -> Result<Changes> {
        let dirty = std::mem::take(&mut self.dirty_parked);
        let of =
            |(slot, time, name): &(u32, Micros, Name)| self.entries.get(*slot as usize).and_then(|entry| entry.parked.get(&(*time, *name)));
        let (mut kept, mut gone): (Vec<(u32, Micros, Name)>, Vec<_>) = dirty.into_iter().partition(|row| of(row).is_some());
        // What was released has expired.
        gone.retain(|(_, time, _)| self.expired_below.is_none_or(|below| *time > below));
        if full {
            gone.clear();
            let all = (0..).zip(&self.entries);
            kept = all.flat_map(|(slot, entry)| entry.parked.keys().map(move |(time, name)| (slot, *time, *name))).collect();
        }
        let table = self.parked_table();
        let upserts = kept.chunks(ROWS_PER_BATCH).map(|rows| self.encode_rows(&table, rows)).collect::<Result<Vec<_>>>()?;
        let mut deletes = Vec::new();
        if !gone.is_empty() {
            deletes.push(RecordBatch::try_new(table.key_schema(), self.parked_keys(&gone)?)?);
        }
        for slot in std::mem::take(&mut self.emptied) {
            if self.is_empty(slot) && self.groups.holds(slot) {
                self.groups.remove(slot);
            }
        }
        Ok(Changes { upserts, deletes, expired_below: self.expired_below, full })
    }

    fn encode_rows(&self, table: &TableSpec, rows: &[(u32, Micros, Name)]) -> Result<RecordBatch> {
        let of =
            |(slot, time, name): &(u32, Micros, Name)| self.entries.get(*slot as usize).and_then(|entry| entry.parked.get(&(*time, *name)));
        let parked: Vec<&Parked> = rows.iter().filter_map(of).collect();
        fn matched(parked: &Parked) -> Option<&Row> {
            parked.published.as_ref().and_then(|(_, matched)| matched.as_ref())
        }
        let mut columns = self.parked_keys(rows)?;
        columns.push(flags(parked.iter().map(|parked| parked.row.is_some())));
        columns.push(flags(parked.iter().map(|parked| parked.published.is_some())));
        columns.push(flags(parked.iter().map(|parked| matched(parked).is_some())));
        for at in 0..self.plan.sources.len() {
            columns.push(ints(parked.iter().map(|parked| parked.tokens.get(at).copied().unwrap_or(0))));
        }
        let left = |rows: &[Option<&Row>]| decode_some(&self.left_rows, self.plan.left.fields(), self.plan.left_width, rows);
        columns.extend(left(&parked.iter().map(|parked| parked.row.as_ref()).collect::<Vec<_>>())?);
        let matches: Vec<Option<&Row>> = parked.iter().map(|parked| matched(parked)).collect();
        columns.extend(decode_some(&self.right_rows, self.plan.right.fields(), self.plan.right_width, &matches)?);
        if self.plan.left_derived {
            columns.extend(left(&parked.iter().map(|parked| parked.published.as_ref().map(|(row, _)| row)).collect::<Vec<_>>())?);
        }
        columns.push(ints(rows.iter().map(|(_, time, _)| *time)));
        Ok(RecordBatch::try_new(Arc::clone(&table.schema), columns)?)
    }

    fn loaded_slots(&mut self, columns: &mut Columns<'_>) -> Result<Vec<u32>> {
        let hashes: Vec<u64> = columns.ints()?.values().iter().map(|hash| *hash as u64).collect();
        let keys = columns.some(self.plan.keys)?;
        let mut slots = Vec::new();
        self.groups.insert(&self.codec.encode(keys)?, &hashes, None, &mut slots);
        Ok(slots)
    }

    pub(super) fn load_versions(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut columns = Columns(rows.columns());
        let slots = self.loaded_slots(&mut columns)?;
        let times = columns.ints()?;
        let partitions: &PrimitiveArray<Int32Type> = columns.one()?.as_primitive_opt().ok_or_else(wrong)?;
        let (offsets, sources) = (columns.ints()?, columns.ints()?);
        let (deleted, tokens) = (columns.flags()?, columns.ints()?);
        let contents = (!columns.0.is_empty()).then(|| self.right_rows.convert_columns(columns.0)).transpose()?;
        for (at, slot) in slots.into_iter().enumerate() {
            let place = Place {
                time: times.value(at),
                partition: partitions.value(at),
                offset: offsets.value(at),
                source: SourceId::try_from(sources.value(at)).map_err(|_| wrong())?,
            };
            let version = Version { row: (!deleted.value(at)).then(|| row(contents.as_ref(), at)), waits: tokens.value(at) };
            self.bytes += version_bytes(&version);
            self.passing.insert((place.time, slot));
            self.entry(slot).versions.insert(place, version);
        }
        Ok(())
    }

    pub(super) fn load_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut columns = Columns(rows.columns());
        let slots = self.loaded_slots(&mut columns)?;
        let times = columns.ints()?;
        let sources = columns.one()?.as_string_view_opt().ok_or_else(wrong)?;
        let partitions: &PrimitiveArray<Int32Type> = columns.one()?.as_primitive_opt().ok_or_else(wrong)?;
        let offsets = columns.ints()?;
        let (there, published, matched) = (columns.flags()?, columns.flags()?, columns.flags()?);
        let tokens = (0..self.plan.sources.len()).map(|_| columns.ints()).collect::<Result<Vec<_>>>()?;
        let mut read = |width: usize, converter: &arrow::row::RowConverter| -> Result<Option<RowBytes>> {
            let columns = columns.some(width)?;
            Ok((width > 0).then(|| converter.convert_columns(columns)).transpose()?)
        };
        let left = read(self.plan.left_width, &self.left_rows)?;
        let right = read(self.plan.right_width, &self.right_rows)?;
        let was = if self.plan.left_derived { read(self.plan.left_width, &self.left_rows)? } else { None };
        for (at, slot) in slots.into_iter().enumerate() {
            let was = if self.plan.left_derived { was.as_ref() } else { left.as_ref() };
            let result = || -> Joined { (row(was, at), matched.value(at).then(|| row(right.as_ref(), at))) };
            let parked = Parked {
                row: there.value(at).then(|| row(left.as_ref(), at)),
                published: published.value(at).then(result),
                tokens: tokens.iter().map(|tokens| tokens.value(at)).collect(),
            };
            let name = (partitions.value(at), offsets.value(at), self.name_number(sources.value(at)));
            self.park(slot, (times.value(at), name), parked);
        }
        Ok(())
    }
}

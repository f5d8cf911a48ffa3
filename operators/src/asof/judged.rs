//! Taking rows in on either side: judged by the watermark of their own partition at their own offset, then kept by key and time.
//!
//! Always: a source row is late iff its time + lateness is below that watermark, on either side; a derived row never is. A version without a
//! time or without a key can match nothing and is `filtered`; a row without one has a result all the same, with NULLs.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::hash::hash_columns;
use tidemill_engine::operator::Output;
use tidemill_engine::rows::{Origin, Rows};
use tidemill_engine::time::{BEGINNING, Micros};

use super::state::{parked_bytes, version_bytes};
use super::versions::{Place, Version};
use super::{Asof, Name, Parked, Row, wrong};
use crate::judge::{event_times, late_event};
use crate::tokens::settle_row;

/// The columns of one batch, by what they are for.
struct Parts<'a> {
    values: &'a [ArrayRef],
    keys: &'a [ArrayRef],
    /// The mark of a deletion, time, names: what the side has.
    own: &'a [ArrayRef],
}

fn parts(rows: &Rows, width: usize, keys: usize) -> Result<Parts<'_>> {
    let (values, rest) = rows.batch.columns().split_at_checked(width).ok_or_else(wrong)?;
    let (keys, own) = rest.split_at_checked(keys).ok_or_else(wrong)?;
    Ok(Parts { values, keys, own })
}

impl Asof {
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

    /// Whether a source row is late; then it is put aside.
    fn late(&self, rows: &Rows, origin: &Origin, row: usize, time: Micros, out: &mut Output) -> bool {
        let watermark = origin.watermarks.get(row).copied().unwrap_or(BEGINNING);
        let late = watermark != BEGINNING && time.saturating_add(self.plan.lateness_us) < watermark;
        if late {
            out.late.push(late_event(origin, row, time, None));
            settle_row(&mut out.counts, Fate::Late, &rows.tokens, row);
        }
        late
    }

    pub(super) fn take_rows(&mut self, rows: &Rows, out: &mut Output) -> Result<()> {
        let parts = parts(rows, self.plan.left_width, self.plan.keys)?;
        let times = event_times(parts.own.first().ok_or_else(wrong)?)?;
        let names = self.row_names(rows, parts.own)?;
        let slots = self.slots(rows, parts.keys)?;
        let contents = (!parts.values.is_empty()).then(|| self.left_rows.convert_columns(parts.values)).transpose()?;
        for (row, (slot, name)) in slots.into_iter().zip(names).enumerate() {
            let time = if times.is_null(row) { BEGINNING } else { times.value(row) };
            if times.is_valid(row)
                && let Some(origin) = &rows.origin
                && self.late(rows, origin, row, time, out)
            {
                self.forget_if_empty(slot);
                continue;
            }
            let content: Row = contents.as_ref().map_or_else(|| Row::from(&[][..]), |contents| Row::from(contents.row(row).data()));
            let sources = self.plan.sources.clone();
            let tokens: Vec<i64> = sources.iter().map(|source| rows.tokens.of(*source, row)).collect();
            sources.iter().zip(&tokens).for_each(|(source, tokens)| out.counts.hold(*source, *tokens));
            self.due.insert((time, slot));
            self.dirty_parked.insert((slot, time, name));
            let comes = rows.weight(row) > 0;
            let (before, after) = {
                let parked = self.entry(slot).parked.entry((time, name)).or_default();
                let before = parked_bytes(parked);
                parked.tokens.resize(tokens.len(), 0);
                parked.tokens.iter_mut().zip(tokens).for_each(|(all, more)| *all += more);
                // A row that is taken back may come again, changed, in the same tick.
                match comes {
                    true => parked.row = Some(content),
                    false if parked.row.as_ref() == Some(&content) => parked.row = None,
                    false => {}
                }
                (before, parked_bytes(parked))
            };
            self.bytes = (self.bytes + after).saturating_sub(before);
        }
        Ok(())
    }

    /// What names each row: its place in the log, or what it carries.
    fn row_names(&mut self, rows: &Rows, own: &[ArrayRef]) -> Result<Vec<Name>> {
        if self.plan.left_derived {
            let sources = own.get(1).and_then(|column| column.as_string_view_opt()).ok_or_else(wrong)?;
            let partitions: &PrimitiveArray<Int32Type> = own.get(2).and_then(|column| column.as_primitive_opt()).ok_or_else(wrong)?;
            let offsets: &PrimitiveArray<Int64Type> = own.get(3).and_then(|column| column.as_primitive_opt()).ok_or_else(wrong)?;
            return Ok((0..rows.len())
                .map(|row| (partitions.value(row), offsets.value(row), self.name_number(sources.value(row))))
                .collect());
        }
        let origin = rows.origin.as_ref().ok_or_else(|| Error::failed("a row of an as-of join without its place in the log"))?;
        let name = self.plan.source_names.iter().find(|(source, _)| *source == origin.source).map(|(_, name)| name.clone());
        let number = self.name_number(&name.unwrap_or_default());
        Ok(origin.offsets.iter().map(|offset| (origin.partition, *offset, number)).collect())
    }

    pub(super) fn take_versions(&mut self, rows: &Rows, out: &mut Output) -> Result<()> {
        let origin = rows.origin.as_ref().ok_or_else(|| Error::failed("a version without its place in the log"))?;
        let parts = parts(rows, self.plan.right_width, self.plan.keys)?;
        let deleted = match self.plan.deletions {
            true => Some(parts.own.first().and_then(|column| column.as_boolean_opt()).ok_or_else(wrong)?),
            false => None,
        };
        let times =
            parts.own.get(usize::from(self.plan.deletions)).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let times = times.ok_or_else(wrong)?;
        let slots = self.slots(rows, parts.keys)?;
        let contents = (!parts.values.is_empty()).then(|| self.right_rows.convert_columns(parts.values)).transpose()?;
        for (row, (slot, offset)) in slots.into_iter().zip(origin.offsets.iter()).enumerate() {
            if times.is_null(row) || parts.keys.iter().any(|key| key.is_null(row)) {
                settle_row(&mut out.counts, Fate::Filtered, &rows.tokens, row);
                self.forget_if_empty(slot);
                continue;
            }
            let time = times.value(row);
            if self.late(rows, origin, row, time, out) {
                self.forget_if_empty(slot);
                continue;
            }
            let waits = rows.tokens.of(origin.source, row);
            out.counts.hold(origin.source, waits);
            let content = || contents.as_ref().map_or_else(|| Row::from(&[][..]), |contents| Row::from(contents.row(row).data()));
            let gone = deleted.is_some_and(|deleted| deleted.is_valid(row) && deleted.value(row));
            let version = Version { row: (!gone).then(content), waits };
            let place = Place { time, partition: origin.partition, offset: *offset, source: origin.source };
            self.bytes += version_bytes(&version);
            self.passing.insert((time, slot));
            self.dirty_versions.insert((slot, place));
            self.entry(slot).versions.insert(place, version);
        }
        Ok(())
    }

    /// A row that was loaded waits again.
    pub(super) fn park(&mut self, slot: u32, at: (Micros, Name), parked: Parked) {
        self.bytes += parked_bytes(&parked);
        self.due.insert((at.0, slot));
        self.entry(slot).parked.insert(at, parked);
    }
}

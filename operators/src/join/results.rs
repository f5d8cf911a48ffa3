//! What a join makes of candidates: pairs, and rows that are results of their own because nothing matches them (or, in a semi join, because
//! something does).
//!
//! Always: a candidate counts once, with the copies that have come or gone; a row that stands alone in the results is taken back before a
//! pair of it goes out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::{filter, take};
use tidemill_engine::account::Fate;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::operator::Output;
use tidemill_engine::rows::{Rows, Tokens};

use super::{CHUNK, Candidate, Join, Kind, LEFT, RIGHT};
use crate::tokens::{hand_on, release};

/// Results of single rows: which, and how many copies come or go.
type Singles = [Vec<(u32, i64)>; 2];

impl Join {
    /// Decides the candidates of a batch of `side`, whose kept columns are `kept`; there are none afterwards.
    pub(super) fn decide(&mut self, side: usize, kept: &[ArrayRef], candidates: &mut Vec<Candidate>, out: &mut Output) -> Result<()> {
        for chunk in candidates.chunks(CHUNK) {
            self.decide_some(side, kept, chunk, out)?;
        }
        candidates.clear();
        Ok(())
    }

    fn decide_some(&mut self, side: usize, kept: &[ArrayRef], chunk: &[Candidate], out: &mut Output) -> Result<()> {
        let pairs = self.plan.kind.pairs();
        let mut columns: [Vec<ArrayRef>; 2] = Default::default();
        if pairs || self.plan.condition.is_some() {
            let at = UInt32Array::from_iter_values(chunk.iter().map(|candidate| candidate.row));
            columns[side] = kept.iter().map(|column| Ok(take(column, &at, None)?)).collect::<Result<_>>()?;
            columns[1 - side] = self.decoded(1 - side, chunk.iter().map(|candidate| candidate.other))?;
        }
        let passes = self.passes(&columns, chunk.len())?;
        let sources = self.plan.sources.len();
        let mut singles = Singles::default();
        let mut weights: Vec<i64> = Vec::with_capacity(chunk.len());
        let mut tokens: Vec<Vec<i64>> = vec![Vec::with_capacity(chunk.len()); sources];
        let mut slots: [Vec<u32>; 2] = Default::default();
        for (number, candidate) in chunk.iter().enumerate() {
            if passes.as_ref().is_some_and(|passes| !passes.value(number)) {
                continue;
            }
            let count = self.matched(1 - side, candidate.other, candidate.delta, &mut singles);
            if candidate.fresh {
                self.matched(side, candidate.own, count, &mut singles);
            }
            if self.plan.kind == Kind::Semi {
                let right = if side == RIGHT { candidate.own } else { candidate.other };
                for (place, source) in self.plan.sources.iter().enumerate() {
                    release(&mut out.counts, Fate::Out, *source, self.sides[RIGHT].take_token(right, place));
                }
                self.sides[RIGHT].touch(right);
            }
            if !pairs {
                continue;
            }
            let weight = candidate.delta * count;
            weights.push(weight);
            slots[side].push(candidate.own);
            slots[1 - side].push(candidate.other);
            for (place, column) in tokens.iter_mut().enumerate() {
                column.push(if weight > 0 {
                    let theirs = self.sides[1 - side].take_token(candidate.other, place);
                    if theirs != 0 {
                        self.sides[1 - side].touch(candidate.other);
                    }
                    theirs + self.sides[side].take_token(candidate.own, place)
                } else {
                    0
                });
            }
        }
        let (gone, come): (Vec<_>, Vec<_>) =
            singles.into_iter().map(|singles| singles.into_iter().partition::<Vec<_>, _>(|(_, weight)| *weight < 0)).unzip();
        for (side, gone) in gone.into_iter().enumerate() {
            self.alone(side, &gone, out)?;
        }
        if !weights.is_empty() {
            if let Some(passes) = &passes {
                for column in columns.iter_mut().flatten() {
                    *column = filter(column, passes)?;
                }
            }
            let mut all = Vec::with_capacity(self.output.fields().len());
            for (side, columns) in columns.iter().enumerate() {
                all.extend(columns.iter().take(self.plan.sides[side].width).cloned());
            }
            for (side, columns) in columns.iter().enumerate() {
                all.extend(self.names(side, &slots[side], columns)?);
            }
            let tokens = hand_on(&mut out.counts, &self.plan.sources, tokens);
            self.emit(all, weights, tokens, out)?;
        }
        for (side, come) in come.into_iter().enumerate() {
            self.alone(side, &come, out)?;
        }
        Ok(())
    }

    /// Which pairs meet the condition; `None`: all.
    fn passes(&self, columns: &[Vec<ArrayRef>; 2], rows: usize) -> Result<Option<BooleanArray>> {
        let Some(condition) = &self.plan.condition else { return Ok(None) };
        let of = |side: usize| columns[side].iter().take(self.plan.sides[side].width).cloned();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let both = RecordBatch::try_new_with_options(Arc::clone(&self.both), of(LEFT).chain(of(RIGHT)).collect(), &options)?;
        let met = condition.evaluate(&both).map_err(|error| Error::failed(format!("{}: {}", condition.text(), error.message())))?;
        let met = met.as_boolean_opt().ok_or_else(|| Error::failed(format!("{} is no condition", condition.text())))?;
        // Neither true nor false is no match.
        Ok(Some(if met.null_count() == 0 { met.clone() } else { arrow::compute::prep_null_mask_filter(met) }))
    }

    /// Copies of a match of this row have come or gone. Returns how many copies of it there are.
    fn matched(&mut self, side: usize, slot: u32, delta: i64, singles: &mut Singles) -> i64 {
        let kind = self.plan.kind;
        let held = self.sides[side].held_mut(slot);
        let (before, after) = (held.matches, held.matches + delta);
        held.matches = after;
        let count = held.count;
        if kind.singles(side) {
            let semi = kind == Kind::Semi;
            let (first, last) = (before <= 0 && after > 0, before > 0 && after <= 0);
            let comes = semi && first;
            let goes = held.shown && if semi { last } else { first };
            if comes || goes {
                held.shown = comes;
                singles[side].push((slot, if comes { count } else { -count }));
            }
            self.sides[side].touch(slot);
        }
        count
    }

    /// Results of rows alone.
    pub(super) fn alone(&mut self, side: usize, singles: &[(u32, i64)], out: &mut Output) -> Result<()> {
        let singles: Vec<(u32, i64)> = singles.iter().filter(|(_, weight)| *weight != 0).copied().collect();
        for singles in singles.chunks(CHUNK) {
            let slots: Vec<u32> = singles.iter().map(|(slot, _)| *slot).collect();
            let columns = self.decoded(side, slots.iter().copied())?;
            let nulls = |field: &arrow::datatypes::FieldRef| new_null_array(field.data_type(), slots.len());
            let sides = if self.plan.kind.pairs() { 2 } else { 1 };
            let mut all: Vec<ArrayRef> = Vec::with_capacity(self.output.fields().len());
            for each in 0..sides {
                let width = self.plan.sides[each].width;
                if each == side {
                    all.extend(columns.iter().take(width).cloned());
                } else {
                    all.extend(self.fields[each].iter().take(width).map(nulls));
                }
            }
            for each in 0..sides {
                if each == side {
                    all.extend(self.names(side, &slots, &columns)?);
                } else {
                    let types = self.plan.sides[each].name_types(self.plan.keys);
                    all.extend(types.iter().map(|data_type| new_null_array(data_type, slots.len())));
                }
            }
            let mut tokens: Vec<Vec<i64>> = vec![Vec::with_capacity(slots.len()); self.plan.sources.len()];
            for (place, column) in tokens.iter_mut().enumerate() {
                column.extend(singles.iter().map(|(slot, weight)| if *weight > 0 { self.sides[side].take_token(*slot, place) } else { 0 }));
            }
            let tokens = hand_on(&mut out.counts, &self.plan.sources, tokens);
            self.emit(all, singles.iter().map(|(_, weight)| *weight).collect(), tokens, out)?;
        }
        Ok(())
    }

    /// The kept columns of held rows.
    pub(super) fn decoded(&self, side: usize, slots: impl Iterator<Item = u32>) -> Result<Vec<ArrayRef>> {
        if self.fields[side].is_empty() {
            return Ok(Vec::new());
        }
        let parser = self.rows[side].parser();
        Ok(self.rows[side].convert_rows(slots.map(|slot| parser.parse(&self.sides[side].held(slot).row)))?)
    }

    /// What names rows.
    fn names(&self, side: usize, slots: &[u32], columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let plan = &self.plan.sides[side];
        if let Some(names) = &plan.names {
            return names.iter().map(|name| columns.get(*name).cloned().ok_or_else(super::wrong)).collect();
        }
        let mut all = self.places(side, slots);
        if plan.windowed {
            let times = slots.iter().map(|slot| self.sides[side].held(*slot).time);
            all.push(Arc::new(TimestampMicrosecondArray::from_iter_values(times)));
        }
        Ok(all)
    }

    /// Source, partition and offset of source rows.
    pub(super) fn places(&self, side: usize, slots: &[u32]) -> Vec<ArrayRef> {
        let held = || slots.iter().map(|slot| self.sides[side].held(*slot));
        let sources: StringViewArray = held().map(|held| Some(self.source_name(held.source))).collect();
        vec![
            Arc::new(sources),
            Arc::new(Int32Array::from_iter_values(held().map(|held| held.partition))),
            Arc::new(Int64Array::from_iter_values(held().map(|held| held.offset))),
        ]
    }

    pub(super) fn source_name(&self, source: u32) -> &str {
        self.plan.source_names.iter().find(|(each, _)| *each as u32 == source).map_or("", |(_, name)| name)
    }

    fn emit(&self, columns: Vec<ArrayRef>, weights: Vec<i64>, tokens: Tokens, out: &mut Output) -> Result<()> {
        let options = RecordBatchOptions::new().with_row_count(Some(weights.len()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.output), columns, &options)?;
        let weights = weights.iter().any(|weight| *weight != 1).then(|| weights.into());
        out.emit(Rows::derived(batch, weights, tokens));
        Ok(())
    }
}

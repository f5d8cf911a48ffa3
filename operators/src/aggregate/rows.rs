//! The one loop over the rows of an update: NULLs, FILTER and weights are decided here and nowhere else.
//!
//! [`each`] is for folds of a few nanoseconds: it has a loop for each case, without the tests that the case does not need. [`visit`] is
//! for those that cost more than the tests: one loop, a quarter of the code.

use arrow::array::{Array, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use tidemill_engine::error::{Error, Result};

/// Calls `fold(row, group, weight)` for every row that counts, in row order.
#[inline(always)]
pub(super) fn each(
    groups: &[u32],
    nulls: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
    weights: Option<&[i64]>,
    mut fold: impl FnMut(usize, usize, i64) -> Result<()>,
) -> Result<()> {
    check_lengths(groups, nulls, filter, weights)?;
    match (selection(nulls, filter), weights) {
        (None, None) => {
            for (row, &group) in groups.iter().enumerate() {
                fold(row, group as usize, 1)?;
            }
        }
        (None, Some(weights)) => {
            for (row, (&group, &weight)) in groups.iter().zip(weights).enumerate() {
                fold(row, group as usize, weight)?;
            }
        }
        (Some(selected), None) => {
            for row in selected.set_indices() {
                fold(row, groups[row] as usize, 1)?;
            }
        }
        (Some(selected), Some(weights)) => {
            for row in selected.set_indices() {
                fold(row, groups[row] as usize, weights[row])?;
            }
        }
    }
    Ok(())
}

/// Like [`each`], in one loop.
#[inline]
pub(super) fn visit(
    groups: &[u32],
    nulls: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
    weights: Option<&[i64]>,
    mut fold: impl FnMut(usize, usize, i64) -> Result<()>,
) -> Result<()> {
    check_lengths(groups, nulls, filter, weights)?;
    let selected = selection(nulls, filter);
    for (row, &group) in groups.iter().enumerate() {
        if selected.as_ref().is_none_or(|selected| selected.value(row)) {
            fold(row, group as usize, weights.map_or(1, |weights| weights[row]))?;
        }
    }
    Ok(())
}

/// The rows that count, or `None` when all do.
fn selection(nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>) -> Option<BooleanBuffer> {
    let valid = nulls.filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.inner());
    let passed = filter.map(|filter| match filter.nulls() {
        Some(nulls) if nulls.null_count() > 0 => filter.values() & nulls.inner(),
        _ => filter.values().clone(),
    });
    match (valid, passed) {
        (Some(valid), Some(passed)) => Some(valid & &passed),
        (Some(valid), None) => Some(valid.clone()),
        (None, passed) => passed,
    }
}

fn check_lengths(groups: &[u32], nulls: Option<&NullBuffer>, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
    let rows = groups.len();
    let fits = nulls.is_none_or(|nulls| nulls.len() == rows)
        && filter.is_none_or(|filter| filter.values().len() == rows)
        && weights.is_none_or(|weights| weights.len() == rows);
    if fits { Ok(()) } else { Err(Error::failed("the columns of an aggregate differ in length")) }
}

/// Refuses weights below zero for an aggregate that can't let a value go.
pub(super) fn no_retractions(weights: Option<&[i64]>, name: &str) -> Result<()> {
    match weights {
        Some(weights) if weights.iter().any(|&weight| weight < 0) => Err(Error::failed(format!("{name} can't take a row out again"))),
        _ => Ok(()),
    }
}

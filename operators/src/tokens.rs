//! Moving tokens: the few steps every operator that keeps rows takes to account for them.
//!
//! Always: tokens taken into state are held, tokens emitted or settled from state are no longer held; so tokens in = tokens out +
//! settled + held after every call. See `tidemill_engine::account`.

use std::sync::Arc;

use tidemill_engine::account::{Fate, NodeCounts};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::rows::{SourceId, Tokens};

/// Settles the tokens of one row that is not kept.
pub fn settle_row(counts: &mut NodeCounts, fate: Fate, tokens: &Tokens, row: usize) {
    match tokens {
        Tokens::Each(source) => counts.settle(fate, *source, 1),
        Tokens::Counts(columns) => {
            for (source, column) in columns {
                counts.settle(fate, *source, column.get(row).copied().unwrap_or(0));
            }
        }
    }
}

/// Where a source's tokens are kept: its place in an operator's list of sources.
pub fn place(sources: &[SourceId], source: SourceId) -> Result<usize> {
    sources
        .iter()
        .position(|each| *each == source)
        .ok_or_else(|| Error::failed(format!("rows of source {source} reached an operator that was not planned for it")))
}

/// Tokens of rows to emit, one column a source of `sources`; they are no longer held.
pub fn hand_on(counts: &mut NodeCounts, sources: &[SourceId], columns: Vec<Vec<i64>>) -> Tokens {
    let mut handed = Vec::new();
    for (source, column) in sources.iter().zip(columns) {
        let sum: i64 = column.iter().sum();
        if column.iter().any(|tokens| *tokens != 0) {
            counts.hold(*source, -sum);
            handed.push((*source, Arc::from(column)));
        }
    }
    Tokens::Counts(handed)
}

/// Settles tokens that were held.
pub fn release(counts: &mut NodeCounts, fate: Fate, source: SourceId, tokens: i64) {
    counts.hold(source, -tokens);
    counts.settle(fate, source, tokens);
}

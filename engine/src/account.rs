//! Accounting: every accepted source row is held by exactly one operator or sink per output, until it is settled.
//!
//! Each node of the dataflow counts what it drops and what it holds; `Ledger` adds the nodes up per (source, output). Nothing is
//! derived from the remainder: `in_state` is what operators say they hold, so an imbalance is a bug that shows, not a number
//! that hides it. The sums are CONTRACT §6's: rows_in = dead + duplicate + filtered + late + out + in_state.

use serde::{Deserialize, Serialize};

use crate::rows::{SourceId, Tokens};

/// Why a row was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// An expression failed on it.
    Dead,
    /// A duplicate that was counted and dropped.
    Duplicate,
    /// Removed by WHERE, or dropped unpublished (HAVING, rank).
    Filtered,
    /// Behind every window it belongs to.
    Late,
    /// A published result reads it.
    Out,
}

/// Counts of one (node or output, source). All are sums but `held`, which is a level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records read.
    pub rows_in: i64,
    /// Dead letters.
    pub dead: i64,
    /// Duplicates.
    pub duplicate: i64,
    /// Filtered rows.
    pub filtered: i64,
    /// Late rows.
    pub late: i64,
    /// Rows that a published result reads.
    pub out: i64,
    /// Rows accepted and not yet settled.
    pub held: i64,
}

impl Counts {
    /// Adds another count.
    pub fn add(&mut self, other: &Self) {
        self.rows_in += other.rows_in;
        self.dead += other.dead;
        self.duplicate += other.duplicate;
        self.filtered += other.filtered;
        self.late += other.late;
        self.out += other.out;
        self.held += other.held;
    }

    /// What is in, less what has been placed: zero when the account balances.
    pub fn imbalance(&self) -> i64 {
        self.rows_in - self.dead - self.duplicate - self.filtered - self.late - self.out - self.held
    }

    fn place(&mut self, fate: Fate, rows: i64) {
        match fate {
            Fate::Dead => self.dead += rows,
            Fate::Duplicate => self.duplicate += rows,
            Fate::Filtered => self.filtered += rows,
            Fate::Late => self.late += rows,
            Fate::Out => self.out += rows,
        }
    }
}

/// The counts of one node, by source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounts(Vec<Counts>);

impl NodeCounts {
    /// The counts for `source`.
    pub fn of(&mut self, source: SourceId) -> &mut Counts {
        if self.0.len() <= source {
            self.0.resize(source + 1, Counts::default());
        }
        &mut self.0[source]
    }

    /// Settles `rows` tokens of `source`.
    pub fn settle(&mut self, fate: Fate, source: SourceId, rows: i64) {
        if rows != 0 {
            self.of(source).place(fate, rows);
        }
    }

    /// Settles all tokens of `rows` rows.
    pub fn settle_all(&mut self, fate: Fate, tokens: &Tokens, rows: usize) {
        tokens.sums(rows, |source, count| self.settle(fate, source, count));
    }

    /// Takes tokens into state (`rows` > 0) or hands them on (`rows` < 0).
    pub fn hold(&mut self, source: SourceId, rows: i64) {
        if rows != 0 {
            self.of(source).held += rows;
        }
    }

    /// Adds another node's or worker's counts.
    pub fn add(&mut self, other: &Self) {
        for (source, counts) in other.0.iter().enumerate() {
            self.of(source).add(counts);
        }
    }

    /// One entry a source.
    pub fn sources(&self) -> &[Counts] {
        &self.0
    }
}

/// The account of one source and output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The source's name.
    pub source: String,
    /// Which reading of the source the output belongs to.
    #[serde(default)]
    pub reading: u32,
    /// The output's name.
    pub output: String,
    /// Sums since the pipeline began, and the level now.
    pub counts: Counts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_held_then_out_and_the_account_balances_throughout() {
        let mut node = NodeCounts::default();
        node.of(0).rows_in = 3;
        node.hold(0, 2);
        node.settle(Fate::Late, 0, 1);
        assert_eq!(node.of(0).imbalance(), 0);
        node.hold(0, -2);
        node.settle_all(Fate::Out, &Tokens::Each(0), 2);
        assert_eq!((node.of(0).imbalance(), node.of(0).out), (0, 2));
    }
}

//! The SQL front end: the text of a pipeline file to a `Program`, and a `Program` to logical plans.
//!
//! Always: statements are ours, queries are DataFusion's planner over our own catalog; nothing parsed is ever ignored silently; every
//! error has its place in the file; a plan depends on the file alone. No I/O, no execution: the lowering to operators stands in
//! `lower`, the batch lowering of the window functions in `batch`. The command calls `parse` and `plan`.

mod asof;
pub mod batch;
pub mod batch_changes;
mod checked;
mod context;
mod create;
mod duration;
mod error;
mod explain;
mod fields;
mod functions;
mod insert;
mod join;
mod kept;
mod keys;
mod lex;
mod literals;
mod options;
mod order;
mod parse;
mod plan;
mod program;
mod refuse;
mod sets;
mod shape;
mod stars;
mod time;
mod ttl;
mod types;
mod windows;

pub use asof::{AsofNode, wrap_asof};
pub use batch::to_batch;
pub use checked::Checked;
pub use context::{HIDDEN, OutputTable, SourceTable, hidden_fields, planners};
pub use duration::{parse as parse_duration, show as show_duration};
pub use error::SqlError;
pub use explain::{data_error, query_error};
pub use functions::AGGREGATES;
pub use join::{Joined, Span, Unbounded, carried_windows, joined, keeps, shows};
pub use kept::{of_doubles, udaf};
pub use keys::{KeyColumn, RankBound, is_row_number, key_of, rank_bound};
pub use literals::approximate;
pub use order::ORDERED;
pub use parse::parse;
pub use plan::{PlannedOutput, RULES, analyze, optimize, plan};
pub use program::*;
pub use shape::stored_type;
pub use time::{TimeKind, time_columns, time_kinds};
pub use types::{TIMESTAMP, sql_name};
pub use windows::{WINDOW_END, WINDOW_START, WindowKind, WindowNode};
#[cfg(test)]
#[path = "golden_tests.rs"]
mod golden;

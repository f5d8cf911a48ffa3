//! Serving: SQL over output tables, change logs and live state, at one epoch, while a run writes them or long after it.
//!
//! Always: from the data folder alone, in the writing process or another; read-only. `snapshot` says which epoch, `catalog` which tables,
//! `derived` and its kinds how a table is put together, `session` how a statement runs, `format` how its rows are printed.

mod catalog;
mod cold;
mod derived;
pub mod format;
mod internal;
mod names;
mod output;
mod readonly;
mod session;
pub mod snapshot;
mod state;
mod wrong;

pub use output::table as output_table;
pub use session::{Answer, Language, QueryOptions, Serve};

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;

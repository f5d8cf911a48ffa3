//! Tidemill's operators, one a file: projections, windows, sessions, top-k, unions, changelogs, as-of joins, and the aggregate states they keep.
//!
//! Nothing here knows SQL, Kafka or Delta, reads a clock or does I/O; an operator is a function of the rows and watermarks it is
//! given. The planner in `pipelines` builds them, the worker in `engine` runs them. A new operator adds one line to this list.

pub mod aggregate;
pub mod asof;
pub mod changelog;
pub mod expression;
pub mod groups;
pub mod hold_back;
pub mod identity;
pub mod join;
pub mod judge;
pub mod keys;
pub mod pane;
pub mod project;
pub mod session;
pub mod tokens;
pub mod top_k;
pub mod union;
pub mod unnest;
pub mod until_final;
pub mod window_aggregate;
pub mod window_assign;
pub mod windows;

#[cfg(test)]
mod testing;

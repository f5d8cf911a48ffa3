//! What the benchmarks share: the bids they run on, a source that serves them from memory, and what a process has used.
//!
//! Always: the bids are a function of a seed; every workload's answer is computed a second time, plainly, and compared. Nothing of this is
//! in the product.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock and waits in a thread of its own")]

pub mod bids;
pub mod floor;
pub mod kafka;
pub mod memory;
pub mod plans;
pub mod usage;
pub mod workloads;

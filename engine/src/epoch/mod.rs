//! Epochs: what makes a run exactly once. An epoch is a cut after one tick; writing its manifest with put-if-absent is the commit.
//!
//! `manifest` is the data, `store` the durable writes, `segment` the files a manifest names, `coordinator` the order in which it all
//! happens, `recover` the way back. The rules, each with what breaks without it, are in ARCHITECTURE.md under "Epochs".

pub mod coordinator;
pub mod delivery;
pub mod manifest;
pub mod recover;
pub mod segment;
pub mod store;
pub mod system;

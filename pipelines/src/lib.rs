//! stub
pub mod cases;
pub mod functions;
mod growth;
pub mod lower;
pub mod runner;
pub mod serve;
pub mod sinks;
pub mod sources;
pub mod sql;
pub mod verify;

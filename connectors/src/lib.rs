//! Connectors: where records come from and where results go, each behind the engine's contracts (`Source`, sinks).
//!
//! Always: a connector sees no operator and no SQL; transport (kafka, file, generator) and format (json) are separate. Clocks, threads and
//! blocking calls live here and nowhere below. To add one: write its module and add its line here.

mod arena;
pub mod delta;
pub mod file;
pub mod format;
pub mod generator;
pub mod generator_source;
pub mod json;
pub mod kafka;
pub mod sink;
pub mod tombstone;

/// Makes one worker's reader of a source.
pub type OpenSource = std::sync::Arc<dyn Fn() -> tidemill_engine::error::Result<Box<dyn tidemill_engine::source::Source>> + Send + Sync>;

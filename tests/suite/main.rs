//! The one test binary of the workspace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "deadlines of waiting, and topic names nobody else has")]

mod case;
mod command;
mod crash;
mod dialect;
mod docs;
mod kafka;
mod kafka_changelog;
mod kafka_sinks;
mod nexmark;
mod oracle;
mod simulation;
mod sinks;
mod support;
mod tidy;
mod verify;

//! The one test binary of the workspace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod case;
mod command;
mod crash;
mod dialect;
mod kafka;
mod oracle;
mod simulation;
mod support;
mod tidy;

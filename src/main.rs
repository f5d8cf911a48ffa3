//! The `tidemill` command: reads what was typed and hands it to a subcommand, one file each.
//!
//! Always: results on stdout, all else on stderr; the exit code says what happened (`exit`). Nothing is computed here.
#![allow(clippy::disallowed_methods, reason = "the command shows people the time; no result depends on it")]

mod answers;
mod check;
mod check_plan;
mod cli;
mod console;
mod demo;
mod demo_answers;
mod demo_feed;
mod describe;
mod exit;
mod generate;
mod lag;
mod progress;
mod prompt;
mod run;
mod signals;
mod sql;
mod statements;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, Common};
use exit::{Out, Outcome, refused};

fn main() -> ExitCode {
    exit::install_panic_hook();
    let cli = Cli::parse();
    exit::finish(log(&cli.common).and_then(|()| dispatch(&cli)))
}

fn dispatch(cli: &Cli) -> Outcome {
    let common = &cli.common;
    match &cli.command {
        Command::Demo(args) => demo::demo(args, common),
        Command::Run(args) => run::run(args, common),
        Command::Sql(args) => sql::sql(args, common),
        Command::Check(args) => check::check(args, common),
        Command::Generate(args) => generate::generate(args, common),
        Command::Verify(args) => verify::verify(args, common),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "tidemill", &mut Out::new());
            Ok(())
        }
    }
}

fn log(common: &Common) -> Outcome {
    let filter = EnvFilter::builder().parse(&common.log).map_err(|_| {
        refused(format!(
            "--log {}: it takes error, warn, info, debug, trace or off, or levels by part, e.g. librdkafka=debug,warn",
            common.log
        ))
    })?;
    let filter = match (common.log.as_str(), common.quiet) {
        ("warn", true) => EnvFilter::new("error"),
        // What these warn of is dealt with: brokers in trouble are told by the run, and no statistics on raw bytes are wanted.
        ("warn", false) => EnvFilter::new("warn,librdkafka=error,deltalake_core::writer::stats=error"),
        _ => filter,
    };
    let lines = tracing_subscriber::fmt().compact().with_env_filter(filter).with_ansi(console::colours()).with_writer(console::LogLines);
    lines.try_init().map_err(|error| refused(format!("--log: {error}")))
}

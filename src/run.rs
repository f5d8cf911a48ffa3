//! `tidemill run FILE.sql`: runs a pipeline until it is stopped, or with `--bounded` up to the end of now.
//!
//! Always: everything that can be refused is refused before anything is written; a stop finishes the epoch. The run itself is
//! `tidemill_pipelines::runner`'s.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tidemill_engine::worker::Shared;
use tidemill_pipelines::runner::{self, Options, Pipeline, Watch};
use tidemill_pipelines::sinks;
use tidemill_pipelines::sources::Connections;
use tidemill_pipelines::sql::{Connector, Sink, SinkConnector, Source};

use crate::answers::Asking;
use crate::cli::{Common, RunArgs};
use crate::console::{count, say};
use crate::exit::{self, Outcome, Stop, refused};
use crate::progress::Progress;
use crate::signals;

/// Names of outputs that are shown in one line.
const NAMES_A_LINE: usize = 6;
/// Memory of the question for the summary.
const ASK_BYTES_MAX: usize = 64 << 20;

/// The runner's options from the command line's.
pub fn options(common: &Common, data: &Path, brokers: Option<String>, bounded: bool) -> Options {
    Options {
        data: data.to_owned(),
        brokers,
        kafka: common.kafka.clone(),
        workers: common.workers(),
        epoch_ms: common.epoch_ms,
        bounded,
        set: common.set.clone(),
    }
}

pub fn run(args: &RunArgs, common: &Common) -> Outcome {
    // Before anything else: a signal that comes while the file is read ends the command as cleanly as a later one.
    let running: Arc<OnceLock<Running>> = Arc::default();
    stop_at_signal(&running, common.quiet)?;
    let data = common.data();
    let pipeline = Arc::new(Pipeline::read(&args.file)?);
    let options = options(common, &data, common.brokers(), args.bounded);
    if args.reset {
        reset(&data, pipeline.name(), args.yes)?;
        let connections = Connections::new(options.brokers.clone(), options.kafka.clone(), pipeline.name(), options.workers);
        sinks::forget_delivered(&pipeline.program, &connections, &mut |what| say(what))?;
    }
    if !common.quiet {
        announce(&pipeline, &options);
    }
    let shared = Arc::new(Shared::new(options.workers));
    let progress = Progress::new(&pipeline, common.quiet);
    // Nobody else sets it.
    let _ = running.set(Running { shared: Arc::clone(&shared), progress: Arc::clone(&progress) });
    let watch: Arc<dyn Watch> = Arc::clone(&progress) as Arc<dyn Watch>;
    let showing = progress.show();
    let begun = Instant::now();
    let outcome = runner::run(&pipeline, &options, &shared, &watch);
    drop(showing);
    let manifest = outcome?;
    if !common.quiet {
        progress.summary(
            begun.elapsed().as_secs_f64(),
            progress.incarnation().and_then(|start| rows_out(&data, pipeline.name(), Some(&start))),
        );
        let folder = data.join(pipeline.name());
        say(&format!("epoch {} is committed; tables are in {}", manifest.epoch, folder.join("tables").display()));
        if let Some(output) = pipeline.program.outputs.iter().find(|output| output.insert.is_none()) {
            let data = if data == Path::new(crate::cli::DATA) { String::new() } else { format!(" --data {}", data.display()) };
            say(&format!("try: tidemill sql{data} -c 'SELECT * FROM {}.{} LIMIT 10'", pipeline.name(), output.name));
        }
    }
    Ok(())
}

/// What a signal stops.
struct Running {
    shared: Arc<Shared>,
    progress: Arc<Progress>,
}

/// The first signal ends the run after its epoch; one that comes before there is a run just ends.
fn stop_at_signal(running: &Arc<OnceLock<Running>>, quiet: bool) -> Outcome {
    let running = Arc::clone(running);
    signals::on_stop(move || {
        let Some(Running { shared, progress }) = running.get() else { exit::leave(0) };
        shared.stop.store(true, Ordering::Release);
        if !progress.started() {
            exit::leave(0);
        }
        if !quiet {
            say("stopping: the epoch is being finished (once more to leave at once)");
        }
    })?;
    Ok(())
}

fn announce(pipeline: &Pipeline, options: &Options) {
    let sources: Vec<String> = pipeline.program.sources.iter().map(|source| described(source, options.brokers.as_deref())).collect();
    let tables = pipeline.program.outputs.iter().filter(|output| output.insert.is_none());
    let outputs: Vec<&str> = tables.map(|output| output.name.as_str()).collect();
    say(&format!(
        "pipeline {}: {}, an epoch every {} ms{}",
        pipeline.name(),
        count(options.workers as u64, "worker"),
        options.epoch_ms,
        if options.bounded { ", up to the end of now" } else { "" }
    ));
    say(&format!("  reads  {}", sources.join(", ")));
    let folder = options.data.join(pipeline.name()).join("tables");
    if !outputs.is_empty() {
        say(&format!("  writes {} to {}", count(outputs.len() as u64, "table"), folder.display()));
    }
    for names in outputs.chunks(NAMES_A_LINE) {
        say(&format!("         {}", names.join(", ")));
    }
    let sinks: Vec<String> = pipeline.program.sinks.iter().map(|sink| going(sink, options.brokers.as_deref())).collect();
    if !sinks.is_empty() {
        say(&format!("  sends  {}", sinks.join(", ")));
    }
}

/// Rows that a pipeline has written, since it began or in one start of it, as `tidemill.epochs` has it; `None` if it can't be asked.
pub fn rows_out(data: &Path, pipeline: &str, incarnation: Option<&str>) -> Option<u64> {
    let start = incarnation.map(|incarnation| format!(" AND incarnation = '{incarnation}'")).unwrap_or_default();
    let query = format!("SELECT CAST(coalesce(sum(rows_out), 0) AS VARCHAR) FROM tidemill.epochs WHERE pipeline = '{pipeline}'{start}");
    let rows = Asking::open(data, ASK_BYTES_MAX, None, 1).ok()?.texts::<1>(&query).ok()?;
    rows.first()?.first()?.parse().ok()
}

/// A source in a few words.
pub fn described(source: &Source, default_brokers: Option<&str>) -> String {
    match &source.options.connector {
        Connector::Kafka { topic, brokers, .. } => {
            let at = brokers.as_deref().or(default_brokers).map(|brokers| format!(" at {brokers}")).unwrap_or_default();
            format!("{} (topic {topic}{at})", source.name)
        }
        Connector::File { path, .. } => format!("{} (file {path})", source.name),
        Connector::Generator { case, .. } => format!("{} (generator {case})", source.name),
    }
}

/// A sink in a few words.
pub fn going(sink: &Sink, default_brokers: Option<&str>) -> String {
    match &sink.connector {
        SinkConnector::Kafka { topic, brokers, .. } => {
            let at = brokers.as_deref().or(default_brokers).map(|brokers| format!(" at {brokers}")).unwrap_or_default();
            format!("{} (topic {topic}{at})", sink.name)
        }
        SinkConnector::File { path, .. } => format!("{} (folder {path})", sink.name),
        SinkConnector::Blackhole => format!("{} (nowhere: its rows are dropped)", sink.name),
    }
}

/// Deletes what a pipeline has written, if the user agrees.
fn reset(data: &Path, name: &str, yes: bool) -> Outcome {
    let folder = data.join(name);
    if !folder.exists() {
        return Ok(());
    }
    if !yes {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return Err(refused(format!(
                "--reset deletes the tables and state in {}; add --yes to say that this is meant",
                folder.display()
            )));
        }
        let mut stderr = std::io::stderr();
        write!(stderr, "--reset deletes the tables and state in {}; sinks get every result again. Type yes to go on: ", folder.display())?;
        stderr.flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "yes" | "y") {
            say("nothing was deleted");
            return Err(Stop::Code(2));
        }
    }
    Ok(runner::reset(data, name)?)
}

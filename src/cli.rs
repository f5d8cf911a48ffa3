//! What can be typed: subcommands, options, and the help that explains them.
//!
//! Always: options of all commands work before and after the subcommand and mean the same everywhere; a bad one is refused with exit 2
//! before anything is opened. What commands do stands in their own files.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// The default of `--data`.
pub const DATA: &str = "tidemill-data";
/// Workers at most: state is spread over 256 key groups, and more threads than that many cores have no use.
pub const WORKERS_MAX: usize = 64;

/// SQL over streams: Kafka topics in, exactly-once tables out, queried with SQL while they are written.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, max_term_width = 110, arg_required_else_help = true, propagate_version = false)]
#[command(after_help = "Start here:
  tidemill demo                                    see it work, with nothing but this binary
  tidemill check pipeline.sql                      what a pipeline will do, and what it will keep
  tidemill run pipeline.sql --brokers HOST:PORT    run it; Ctrl-C stops, the same again resumes
  tidemill sql -c 'SELECT * FROM my_table'         ask, also while it runs
  tidemill verify pipeline.sql                     compare its tables with a batch over the same records

`tidemill help COMMAND` explains each. Results go to stdout, everything else to stderr.
Exit codes: 0 done, 1 failed or different, 2 refused (bad SQL or option, something to change first), 130 stopped at once.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub common: Common,
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of all commands")]
pub struct Common {
    /// Kafka brokers, for sources that name none
    #[arg(long, global = true, env = "TIDEMILL_BROKERS", value_name = "HOST:PORT", value_parser = brokers)]
    pub brokers: Option<String>,
    /// Where tables and state lie [default: tidemill-data]
    #[arg(long, global = true, env = "TIDEMILL_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Threads that run the pipeline, 1 to 64 [default: one a core]
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=WORKERS_MAX as i64))]
    pub workers: Option<u16>,
    /// Results are committed this often, in milliseconds
    #[arg(long, global = true, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub epoch_ms: u64,
    /// A property of librdkafka, e.g. security.protocol=SASL_SSL; may be repeated
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub kafka: Vec<(String, String)>,
    /// A setting of the run, e.g. idle_after='5 seconds'; may be repeated; an unknown one lists all
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What goes to the log on stderr: error, warn, info, debug, trace, off, or by part (librdkafka=debug,warn)
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn")]
    pub log: String,
}

impl Common {
    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.data.clone().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from(DATA))
    }

    /// `--brokers`; an empty one is none.
    pub fn brokers(&self) -> Option<String> {
        self.brokers.clone().filter(|brokers| !brokers.is_empty())
    }

    /// `--workers`, or one a core.
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.map_or_else(cores, usize::from).clamp(1, WORKERS_MAX)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// See a case study work: embedded broker, made-up events, pipeline, answers
    #[command(after_help = "Examples:
  tidemill demo                               the URL shortener, 300,000 clicks
  tidemill demo --events 50000 --keep         shorter; keep the tables to ask more of them
  tidemill demo --brokers localhost:9092      the same through a real Kafka
  tidemill demo --list                        which cases there are")]
    Demo(DemoArgs),
    /// Run a pipeline until it is stopped; run again, it resumes
    #[command(
        after_help = "Ctrl-C or SIGTERM finishes the epoch and exits with 0. The next run goes on where this one stopped: every record counts
exactly once, also after a kill -9.

Examples:
  tidemill run clicks.sql --brokers localhost:9092
  tidemill run clicks.sql --bounded               read up to now, publish every open window, exit
  tidemill run clicks.sql --reset --yes           forget tables and state, begin anew
  tidemill run clicks.sql --kafka security.protocol=SASL_SSL --kafka sasl.mechanism=PLAIN \\
      --kafka sasl.username=ann --kafka sasl.password=…"
    )]
    Run(RunArgs),
    /// Ask the tables: a prompt, -c QUERY, or a file on stdin
    #[command(
        after_help = "A table is pipeline.table, or its bare name where that is unambiguous; \"table$log\" shows every change of it; tidemill.accounting,
tidemill.epochs and tidemill.pipelines tell of the runs, state.* of what operators hold. All tables of a query stand at one epoch.

Examples:
  tidemill sql                                            the prompt; \\d lists tables, \\? helps
  tidemill sql -c 'SELECT count(*) FROM clicks_per_minute'
  tidemill sql --format csv -c 'SELECT * FROM dead_letters' > dead.csv
  tidemill sql < questions.sql"
    )]
    Sql(SqlArgs),
    /// Show what a pipeline will do and keep, or why it is refused; contacts nobody
    #[command(after_help = "Examples:
  tidemill check clicks.sql
  tidemill check clicks.sql && tidemill run clicks.sql --brokers localhost:9092")]
    Check(CheckArgs),
    /// Make up a case study's records, into Kafka or files; same seed, same bytes
    #[command(after_help = "Examples:
  tidemill generate url_shortener --brokers localhost:9092 --count 1000000
  tidemill generate url_shortener --brokers localhost:9092 --count 0 --rate 5000    without end, 5,000 a second
  tidemill generate url_shortener --out clicks/ --seed 7                            clicks/url.clicks.ndjson")]
    Generate(GenerateArgs),
    /// Compare the tables with a batch over the same records
    #[command(
        after_help = "Reads the records again, up to the newest epoch, and runs the file's SQL over them as one batch: every output, its late events, the dead
letters and the accounts must be what the batch says. Prints what was compared and the rows that differ. Nothing is written; a run may
go on meanwhile (then windows that are still open are not compared). Records and what the batch spills lie in the folder for temporary
files (TMPDIR) while it works. Columns of approx_distinct are compared within 3.3 %, those of approx_percentile_cont within 1 %.

Exit codes: 0 equal; 1 different; 2 nothing to compare: no tables, a changed file, or a log that no longer holds the records.

Examples:
  tidemill verify clicks.sql --brokers localhost:9092
  tidemill verify clicks.sql --rows 100 --memory 4GiB --quiet"
    )]
    Verify(VerifyArgs),
    /// Print the completions of a shell
    #[command(after_help = "Examples:
  tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill
  tidemill completions zsh > ~/.zfunc/_tidemill")]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Which case; --list names them
    #[arg(default_value = "url_shortener")]
    pub case: String,
    /// How many events
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub events: u64,
    /// Which events: the same seed makes the same ones
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Keep the tables, and say where they lie
    #[arg(long)]
    pub keep: bool,
    /// Name the cases
    #[arg(long)]
    pub list: bool,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The pipeline
    #[arg(value_name = "FILE.sql")]
    pub file: PathBuf,
    /// Read up to the end of now, publish every open window as if time had ended, and exit
    #[arg(long)]
    pub bounded: bool,
    /// First delete the pipeline's tables and state
    #[arg(long)]
    pub reset: bool,
    /// Do not ask before --reset
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct SqlArgs {
    /// A query; may be repeated
    #[arg(short = 'c', long = "command", value_name = "QUERY")]
    pub queries: Vec<String>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Memory of a query; what does not fit is spilled to temporary files
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub memory: usize,
}

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// A header and a line a row; NULL is empty, an empty string ""
    Csv,
    /// One object a line
    Json,
    /// An Arrow IPC stream
    Arrow,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The pipeline
    #[arg(value_name = "FILE.sql")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The pipeline
    #[arg(value_name = "FILE.sql")]
    pub file: PathBuf,
    /// Show so many differing rows of each kind
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub rows: usize,
    /// Memory of the batch; what does not fit is spilled to temporary files
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub memory: usize,
}

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Which case; `tidemill demo --list` names them
    pub case: String,
    /// Write one NDJSON file a topic into this folder instead (records without a payload have no line and are left out)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How many records; 0 for no end
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub count: u64,
    /// Records a second at most, by the wall clock [default: as fast as they are taken]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Records a second in the made-up time of the records [default: the case's, so that hours pass in a few hundred thousand]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub event_rate: Option<f64>,
    /// Which records: the same seed makes the same ones
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Partitions of a topic that has to be made
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: u32,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), unquoted(value.trim()).to_owned())),
        _ => Err("it is written key=value".to_owned()),
    }
}

/// Without the quotes that a user copies from the SQL.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(value)
}

fn brokers(text: &str) -> Result<String, String> {
    let good = |part: &str| match part.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0),
        None => false,
    };
    if text.is_empty() || text.split(',').all(|part| good(part.trim())) {
        Ok(text.to_owned())
    } else {
        Err("it is written HOST:PORT, several with commas between".to_owned())
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| value.is_finite() && *value > 0.0).ok_or_else(|| "a number above 0 is needed".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return Err("it is written as 512MB or 2GiB".to_owned()),
    };
    let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(scale));
    bytes.filter(|bytes| *bytes >= 1 << 20).ok_or_else(|| "at least 1MiB is needed, as 512MB or 2GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn common_options_stand_before_and_after_the_subcommand() {
        let before = Cli::try_parse_from(["tidemill", "--workers", "3", "run", "a.sql"]).expect("fine");
        let after = Cli::try_parse_from(["tidemill", "run", "a.sql", "--workers", "3"]).expect("fine");
        assert_eq!((before.common.workers(), after.common.workers()), (3, 3));
        assert!(Cli::try_parse_from(["tidemill", "run", "a.sql", "--workers", "65"]).is_err());
    }

    #[test]
    fn values_are_read_or_refused() {
        assert_eq!(key_value("idle_after='5 seconds'"), Ok(("idle_after".to_owned(), "5 seconds".to_owned())));
        assert!(key_value("nothing").is_err());
        assert_eq!((size("1GiB"), size("512 MB")), (Ok(1 << 30), Ok(512_000_000)));
        assert!(size("12parsecs").is_err());
        assert_eq!((brokers("a:1,b:2").is_ok(), brokers("a").is_ok(), brokers("").is_ok()), (true, false, true));
    }
}

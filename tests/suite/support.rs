//! What the tests of this binary share: the command under test in a folder of its own, rows as text, golden files, waiting.
//!
//! Always: a folder goes with its test; waiting polls up to a deadline and says what it waited for; nothing sleeps to hide a race.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A folder with pipeline files, input and a data folder, and the command in it.
pub struct Bench {
    folder: tempfile::TempDir,
}

/// How a command ended.
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the command writes UTF-8");
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Its stdout, if it exited with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    }

    /// The command, with the data folder `data` unless the arguments say otherwise. Backtraces are on: no error may show one.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("TIDEMILL_DATA", self.path("data")).env("RUST_BACKTRACE", "1").env_remove("TIDEMILL_BROKERS").env_remove("RUST_LOG");
        command
    }

    /// Runs it to its end.
    pub fn tidemill(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().expect("starts"))
    }

    /// Runs it with a text on its stdin.
    pub fn tidemill_with(&self, args: &[&str], stdin: &str) -> Said {
        let file = self.write("stdin", stdin);
        let stdin = std::fs::File::open(file).expect("opens");
        Said::of(&self.command(args).stdin(stdin).output().expect("starts"))
    }

    /// Starts it and lets it run; its words go to a file that `heard` reads.
    pub fn start(&self, args: &[&str]) -> Running {
        let said = self.path(&format!("stderr-{}", args.join("-").replace('/', "_")));
        let file = std::fs::File::create(&said).expect("made");
        let child = self.command(args).stdout(Stdio::null()).stderr(file).spawn().expect("starts");
        Running { child, said }
    }

    /// A query's rows, one JSON object each, sorted.
    pub fn rows(&self, query: &str) -> Vec<String> {
        let said = self.tidemill(&["sql", "--format", "json", "-c", query]).exits(0);
        let mut rows: Vec<String> = said.out.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    }

    /// What a pipeline has written and what no way of running it may change: its tables, late events, dead letters, and the accounts asked
    /// for.
    pub fn everything(&self, pipeline: &str, outputs: &[&str], accounts: &str) -> Vec<(String, Vec<String>)> {
        let mut all: Vec<(String, Vec<String>)> =
            outputs.iter().map(|output| ((*output).to_owned(), self.rows(&format!("SELECT * FROM {pipeline}.{output}")))).collect();
        for system in ["late_events", "dead_letters"] {
            all.push((system.to_owned(), self.rows(&format!("SELECT * FROM {pipeline}.{system}"))));
        }
        all.push(("accounting".to_owned(), self.rows(accounts)));
        all
    }

    /// Fails unless each output's account balances and has `records` records.
    pub fn balances(&self, pipeline: &str, records: usize) {
        for row in self.rows(&accounts(pipeline)) {
            assert!(row.contains(r#""unplaced":0"#), "{row}");
            assert!(row.contains(&format!(r#""rows_in":{records},"#)), "{records} records; {row}");
        }
    }
}

/// What every output did with its input, and the records that are nowhere.
pub fn accounts(pipeline: &str) -> String {
    format!(
        "WITH ends AS (SELECT source, output, max(epoch) AS epoch FROM tidemill.accounting WHERE pipeline = '{pipeline}' GROUP BY 1, 2),
         held AS (SELECT a.source, a.output, a.in_state FROM tidemill.accounting a JOIN ends e USING (source, output, epoch)
                  WHERE a.pipeline = '{pipeline}'),
         sums AS (SELECT source, output, sum(rows_in) AS rows_in, sum(dead) AS dead, sum(duplicate) AS duplicate, sum(filtered) AS filtered,
                         sum(late) AS late, sum(\"out\") AS published
                  FROM tidemill.accounting WHERE pipeline = '{pipeline}' GROUP BY 1, 2)
         SELECT s.source, s.output, rows_in, dead, duplicate, filtered, late, published, in_state,
                rows_in - dead - duplicate - filtered - late - published - in_state AS unplaced
         FROM sums s JOIN held h ON s.source = h.source AND s.output = h.output ORDER BY 1, 2"
    )
}

/// The part of the accounts that the log alone decides. Whether a row was published before something displaced it, or was dropped with
/// what held it, depends on when epochs end.
pub fn steady_accounts(pipeline: &str) -> String {
    format!("SELECT source, output, rows_in, dead, duplicate, late, unplaced FROM ({})", accounts(pipeline))
}

/// A command that runs.
pub struct Running {
    child: Child,
    said: PathBuf,
}

impl Running {
    /// What it has said on stderr.
    pub fn heard(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().expect("waits").is_some()
    }

    /// Kills it as `kill -9` does; false if it had ended before.
    pub fn kill(&mut self) -> bool {
        let ran = !self.ended();
        let _ = self.child.kill();
        self.child.wait().expect("waits").code().is_none() && ran
    }

    /// Sends SIGTERM and waits for its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        self.code()
    }

    /// Its exit code, within a minute.
    pub fn code(&mut self) -> Option<i32> {
        let status = until("the command ends", Duration::from_secs(60), || self.child.try_wait().expect("waits"));
        status.code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < limit, "waited {} s in vain: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A path in the checkout.
pub fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a golden file of the checkout; TIDEMILL_BLESS=1 writes it instead.
#[track_caller]
pub fn golden(path: &str, found: &str) {
    let file = checkout(path);
    if std::env::var_os("TIDEMILL_BLESS").is_some() {
        std::fs::write(&file, found).expect("written");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}; TIDEMILL_BLESS=1 writes it"));
    if expected != found {
        let at = expected.lines().zip(found.lines()).position(|(a, b)| a != b);
        let line = at.unwrap_or(expected.lines().count().min(found.lines().count()));
        let show = |text: &str| text.lines().skip(line.saturating_sub(3)).take(12).collect::<Vec<_>>().join("\n");
        panic!("{path} differs from line {} on. Expected:\n{}\n\nfound:\n{}", line + 1, show(&expected), show(found));
    }
}

/// The sources of a case read the files of a folder for each topic, called as the topic is.
pub fn over_files(sql: &str, folder: &Path) -> String {
    sql.replace("connector = 'kafka', topic = '", &format!("connector = 'file', path = '{}/", folder.display()))
}

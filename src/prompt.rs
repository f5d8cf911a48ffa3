//! The prompt of `tidemill sql`: lines with history and completion, statements that end with `;`, commands that begin with `\`.
//!
//! Always: a query that fails or breaks leaves the prompt standing; Ctrl-C ends a running query or clears the line, Ctrl-D leaves. The
//! history is a file that only its owner reads.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use tidemill_engine::error::{Error, Result};

use crate::answers::{self, Asking, Cancel, Format};
use crate::console::{self, say};
use crate::describe;
use crate::exit::{self, Outcome, refused};
use crate::statements;

const HISTORY_LINES_MAX: usize = 10_000;

const HELP: &str = r#"  SELECT …;        a query; it may take several lines and ends with ;
  \d               list tables
  \d NAME          the columns of a table
  \timing          show how long queries take, or no longer
  \format NAME     print rows as table, csv, json or arrow
  \q               leave (Ctrl-D too)
Ctrl-C ends a running query. Tab completes names.
"table$log" has every change of a table; tidemill.accounting, tidemill.epochs, tidemill.pipelines and state.* tell of the runs."#;

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "USING",
    "UNION ALL",
    "WITH",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IS NULL",
    "IN",
    "BETWEEN",
    "LIKE",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "DISTINCT",
    "FILTER",
    "OVER",
    "PARTITION BY",
    "INTERVAL",
    "DESC",
    "ASC",
    "EXPLAIN",
    "DESCRIBE",
    "count(",
    "sum(",
    "min(",
    "max(",
    "avg(",
    "approx_distinct(",
    "date_trunc(",
    "tumble(",
    "hop(",
    "session(",
];

pub fn prompt(asking: &Asking, data: &Path, format: Format, quiet: bool) -> Outcome {
    exit::survive_panics();
    let broken = |error: ReadlineError| refused(format!("the prompt can't be shown: {error}"));
    let config = Config::builder()
        .max_history_size(HISTORY_LINES_MAX)
        .and_then(|config| config.history_ignore_dups(true))
        .map_err(broken)?
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Words, DefaultHistory> = Editor::with_config(config).map_err(broken)?;
    editor.set_helper(Some(Words { names: names(asking) }));
    let history = history_file(data);
    if let Some(file) = &history {
        // The first time there is none.
        let _ = editor.load_history(file);
    }
    if !quiet {
        say(&format!("Tidemill {}, tables in {}. \\? for help, \\q to leave.", env!("CARGO_PKG_VERSION"), data.display()));
    }
    let mut session = Session { asking, data, format, timing: false };
    loop {
        match editor.readline("tidemill> ") {
            Ok(text) => {
                let text = text.trim();
                if text.is_empty() {
                    continue;
                }
                editor.add_history_entry(text).map_err(broken)?;
                // Kept at once, for a prompt that is killed; without a place for it there is none.
                let _ = history.as_ref().map(|file| editor.append_history(file));
                if session.take(text) == Next::Leave {
                    break;
                }
                editor.set_helper(Some(Words { names: names(asking) }));
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(())
}

/// Beside the data folder if there is a history already, else where programs keep such things.
fn history_file(data: &Path) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let beside = data.parent().map(|parent| parent.join(".tidemill_history")).filter(|file| file.exists());
    let state = || variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    let file = beside.or_else(|| state().map(|state| state.join("tidemill/history")))?;
    std::fs::create_dir_all(file.parent()?).ok()?;
    Some(file)
}

#[derive(PartialEq, Eq)]
enum Next {
    Ask,
    Leave,
}

struct Session<'a> {
    asking: &'a Asking,
    data: &'a Path,
    format: Format,
    timing: bool,
}

impl Session<'_> {
    fn take(&mut self, text: &str) -> Next {
        if let Some(command) = text.strip_prefix('\\') {
            return self.command(command);
        }
        if ["quit", "exit", "quit;", "exit;"].contains(&text.to_ascii_lowercase().as_str()) {
            return Next::Leave;
        }
        for piece in statements::split(text) {
            if let Err(error) = self.query(&piece.in_place()) {
                exit::tell(&error);
                break;
            }
        }
        Next::Ask
    }

    fn command(&mut self, command: &str) -> Next {
        let mut words = command.trim_end_matches(';').split_whitespace();
        let (name, argument) = (words.next().unwrap_or_default(), words.next());
        let done = match (name, argument) {
            ("q", _) => return Next::Leave,
            ("?" | "h" | "help", _) => answers::line(HELP),
            ("d" | "dt", None) => describe::tables(self.asking, self.data),
            ("d", Some(table)) => describe::table(self.asking, self.data, table),
            ("timing", _) => {
                self.timing = !self.timing;
                answers::line(if self.timing { "times are shown" } else { "times are not shown" })
            }
            ("format", Some(format)) => format.parse().map(|format| self.format = format),
            _ => Err(Error::refused(format!("there is no command \\{name}; \\? lists them"))),
        };
        if let Err(error) = done {
            exit::tell(&error);
        }
        Next::Ask
    }

    fn query(&self, text: &str) -> Result<()> {
        let begun = Instant::now();
        if !self.asking.print(text, self.format, Cancel::Interrupt, false)? {
            say("cancelled");
        } else if self.timing {
            say(&format!("took {}", console::seconds(begun.elapsed().as_secs_f64())));
        }
        Ok(())
    }
}

/// Names that Tab completes.
fn names(asking: &Asking) -> Vec<String> {
    let mut names = describe::names(asking).unwrap_or_default();
    names.extend(WORDS.iter().map(|word| (*word).to_owned()));
    names
}

/// Completes words, and waits for the `;`.
struct Words {
    names: Vec<String>,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _context: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or(line);
        let begin = before
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | '"')))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let word = before.get(begin..).unwrap_or_default();
        if word.is_empty() {
            return Ok((at, Vec::new()));
        }
        let lower = word.to_lowercase();
        let small = word.chars().all(|c| !c.is_uppercase());
        let fits = self.names.iter().filter(|name| name.to_lowercase().starts_with(&lower));
        let mut found: Vec<String> =
            fits.map(|name| if small && WORDS.contains(&name.as_str()) { name.to_lowercase() } else { name.clone() }).collect();
        found.sort();
        found.dedup();
        Ok((begin, found))
    }
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let word = matches!(text.to_ascii_lowercase().as_str(), "quit" | "exit");
        let whole = text.starts_with('\\') || word || !statements::open(text);
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Helper for Words {}

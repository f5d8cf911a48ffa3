//! Errors with a place in the pipeline file.
//!
//! Always: the text begins `FILE:LINE:COL: error:`, says what is wrong in SQL terms and, where we know it, what to write instead on a
//! `help:` line. No Rust path, no backtrace, nothing of the planner's own vocabulary. Made everywhere in `sql`; turned into the
//! engine's refusal (exit 2) at the border.

use std::fmt;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::{Location, Span};

use super::program::Place;

/// What is wrong with a pipeline file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlError {
    pub file: String,
    pub place: Place,
    pub message: String,
    pub help: Option<String>,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: error: {}", self.file, self.place.line, self.place.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<SqlError> for tidemill_engine::error::Error {
    fn from(error: SqlError) -> Self {
        Self::refused(error.to_string())
    }
}

/// A complaint whose file is not known yet: what the parts of `sql` raise. `at` of `None` means the caller knows the place better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    pub at: Option<Place>,
    pub message: String,
    pub help: Option<String>,
}

/// The result of every step inside `sql`.
pub(super) type Checked<T> = Result<T, Complaint>;

impl Complaint {
    pub fn new(at: impl Into<Option<Place>>, message: impl Into<String>) -> Self {
        Self { at: at.into(), message: message.into(), help: None }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// "did you mean" as help, when one of `known` is close.
    pub fn suggest<'a>(mut self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some(near) = nearest(wrong, known) {
            self.help = Some(format!("did you mean {near}?"));
        }
        self
    }

    /// Fills in a place that only the caller knows.
    pub fn or_at(mut self, place: Place) -> Self {
        self.at.get_or_insert(place);
        self
    }

    pub fn in_file(self, file: &str) -> SqlError {
        SqlError { file: file.to_owned(), place: self.at.unwrap_or(Place::START), message: self.message, help: self.help }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Complaint {}

/// Carries a complaint through DataFusion's planner; `translate` takes it out again.
impl From<Complaint> for DataFusionError {
    fn from(complaint: Complaint) -> Self {
        Self::External(Box::new(complaint))
    }
}

/// The place of a span, unless it is one of the empty ones that syntax made up by the parser has.
pub(super) fn place(span: Span) -> Option<Place> {
    at(span.start)
}

/// The same of a location.
pub(super) fn at(location: Location) -> Option<Place> {
    (location.line > 0).then_some(Place { line: location.line, column: location.column })
}

/// The known word closest to a wrong one, if close enough to be meant: at most a third of its letters differ.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let most = (wrong.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|each| (distance(&wrong, &each.to_lowercase()), each))
        .filter(|(distance, _)| *distance <= most && *distance < wrong.chars().count())
        .min_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(b.1)))
        .map(|(_, each)| each)
}

/// Edit distance where two swapped neighbours count once (optimal string alignment): the slips of typing.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let (up, left, corner) = (last[j + 1] + 1, row[j] + 1, last[j] + usize::from(x != y));
            let mut best = up.min(left).min(corner);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

//! Errors, sorted by what happens next. Who raises one decides here, once, whether the run goes on.
//!
//! Bad *records* are not errors: they become dead letters and the partition goes on (see `dead_letter`).
//! Nothing here prints; the command turns an error into text and an exit code.

use std::fmt;

/// What the caller must do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user asked for something that can't be: exit 2, nothing touched.
    Refused,
    /// The outside (broker, disk, object store) failed: retry within a limit, then exit 1.
    External,
    /// The run can't go on: exit 1.
    Failed,
}

/// One error: its kind, what is wrong and what to do about it, in words a user can act on.
#[derive(Debug, Clone)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// The result of anything in Tidemill.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The user must change something first (exit 2).
    pub fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into() }
    }

    /// Something outside failed; trying again may help (exit 1 when it does not).
    pub fn external(message: impl Into<String>) -> Self {
        Self { kind: Kind::External, message: message.into() }
    }

    /// The run can't go on (exit 1).
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, message: message.into() }
    }

    /// What the caller must do.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The text for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same error with a place or a task in front: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::external(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::failed(format!("JSON: {error}"))
    }
}

//! Errors of a statement with their place: `-c:1:8: error: …`, the shape that errors of pipeline files have.
//!
//! Always: a wrong statement is `refused` and begins with what its text is called, a line and a column; where the planner knows no place it is that of
//! the first name in the text which the message speaks of, else the statement's first word. Called by `session`.

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use tidemill_engine::error::{Error, Kind};

use crate::sql::{self, Place};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Wrong {
    /// The statement is wrong, here if that is known.
    Statement { at: Option<Place>, message: String },
    /// Anything else.
    Other(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Wrong {
    /// What a statement may not do.
    pub(super) fn refused(error: Error) -> Self {
        match error.kind() {
            Kind::Refused => Self::Statement { at: None, message: error.message().to_owned() },
            _ => Self::Other(error),
        }
    }

    /// An error of the statement, with its place if DataFusion knows it.
    pub(super) fn sql(error: &DataFusionError) -> Self {
        if let Some(error) = ours(error) {
            return Self::refused(error);
        }
        if matches!(error.find_root(), DataFusionError::External(_) | DataFusionError::SchemaError(..)) {
            let (at, message) = sql::query_error(error);
            return Self::Statement { at, message };
        }
        let span = error.diagnostic().and_then(|diagnostic| diagnostic.span).filter(|span| span.start.line > 0);
        let at = span.map(|span| Place { line: span.start.line, column: span.start.column });
        let message = text(error);
        match message.rsplit_once(" at Line: ").and_then(|(before, place)| Some((before, parsed(place)?))) {
            Some((before, place)) => Self::Statement { at: at.or(Some(place)), message: before.to_owned() },
            None => Self::Statement { at, message },
        }
    }

    /// The error as it is told: `name` is what the text is called.
    pub(super) fn placed(self, name: &str, text: &str) -> Error {
        match self {
            Self::Other(error) => error,
            Self::Statement { at, message } => {
                let at = at.unwrap_or_else(|| find(text, &message));
                Error::refused(format!("{name}:{}:{}: error: {message}", at.line, at.column))
            }
        }
    }
}

/// `1, Column: 8`.
fn parsed(place: &str) -> Option<Place> {
    let (line, column) = place.split_once(", Column: ")?;
    Some(Place { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
}

/// Where the first name stands that the message speaks of; keywords are in every statement.
fn find(text: &str, message: &str) -> Place {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap_or_default();
    let place = |token: &TokenWithSpan| Place { line: token.span.start.line, column: token.span.start.column };
    let spoken = |token: &&TokenWithSpan, keywords: bool| match &token.token {
        Token::Word(word) if keywords || word.keyword == Keyword::NoKeyword || word.quote_style.is_some() => {
            speaks_of(message, &word.value)
        }
        _ => false,
    };
    let mut words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    let named = tokens.iter().find(|token| spoken(token, false));
    let first = words.next();
    // A table may be called like a keyword.
    named.or_else(|| words.find(|token| spoken(token, true))).or(first).map_or(Place::START, place)
}

/// Whether a word stands in a message by itself.
fn speaks_of(message: &str, word: &str) -> bool {
    let (message, word) = (message.to_lowercase(), word.to_lowercase());
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let alone = |(at, _): (usize, &str)| {
        let before = message.get(..at).and_then(|before| before.chars().next_back());
        let behind = message.get(at + word.len()..).and_then(|behind| behind.chars().next());
        !part(before) && !part(behind)
    };
    !word.is_empty() && message.match_indices(&word).any(alone)
}

/// Our own error, if DataFusion carries one.
pub(super) fn ours(error: &DataFusionError) -> Option<Error> {
    match error.find_root() {
        DataFusionError::External(error) => error.downcast_ref::<Error>().cloned(),
        _ => None,
    }
}

/// The message without the words that say where in DataFusion it arose.
pub(super) fn text(error: &DataFusionError) -> String {
    let message = error.find_root().strip_backtrace();
    let prefixes = [
        "Error during planning: ",
        "Schema error: ",
        "SQL error: ",
        "Execution error: ",
        "Arrow error: ",
        "This feature is not implemented: ",
        "External error: ",
    ];
    let mut rest = message.as_str();
    while let Some(next) = prefixes.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = next;
    }
    if let Some(parser) = rest.strip_prefix("ParserError(\"").and_then(|rest| rest.strip_suffix("\")")) {
        rest = parser;
    }
    rest.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stands_at_the_name_that_it_speaks_of() {
        let at = |text: &str, message: &str| {
            let told = Wrong::Statement { at: None, message: message.to_owned() }.placed("-c", text);
            told.message().split(": error").next().unwrap_or_default().to_owned()
        };
        assert_eq!(at("SELECT *\n  FROM wrods", "there is no table wrods; did you mean words?"), "-c:2:8");
        assert_eq!(at("SELECT word, foo(1) FROM words", "Invalid function 'foo'"), "-c:1:14");
        assert_eq!(at("\n  DELETE FROM words", "this is read-only: DELETE is refused"), "-c:2:3");
        assert_eq!(at("SELECT wordy FROM words", "there is no table word"), "-c:1:1");
        assert_eq!(at("SELECT * FROM nothing", "there is no table nothing"), "-c:1:15");
        assert_eq!(at("", "there is no statement"), "-c:1:1");
    }

    #[test]
    fn the_place_of_the_parser_is_taken() {
        assert_eq!(parsed("3, Column: 14"), Some(Place { line: 3, column: 14 }));
        assert_eq!(parsed("x"), None);
    }
}

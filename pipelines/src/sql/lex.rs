//! Text to tokens with places, and tokens to statements.
//!
//! Always: the file is lexed once; every statement keeps the tokens of its text, so each thing parsed from it has its place in the
//! file. Comments and white space are dropped here. Words of other systems' SQL are met here too, with what to write instead, because
//! their statements don't parse. Called by `parse`.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::error::{Checked, Complaint, at};
use super::program::Place;

/// The dialect everything is read in.
pub(super) static DIALECT: GenericDialect = GenericDialect {};

/// The tokens of one statement, without the semicolon.
#[derive(Debug, Clone)]
pub(super) struct Tokens {
    tokens: Vec<TokenWithSpan>,
    /// Just behind the last token: where something missing is missing.
    pub end: Place,
}

impl Tokens {
    /// Where the statement begins.
    pub fn start(&self) -> Place {
        self.tokens.first().and_then(|token| at(token.span.start)).unwrap_or(self.end)
    }

    pub fn all(&self) -> &[TokenWithSpan] {
        &self.tokens
    }

    /// The place of the token at `index`, or the statement's end.
    pub fn place(&self, index: usize) -> Place {
        self.tokens.get(index).and_then(|token| at(token.span.start)).unwrap_or(self.end)
    }

    /// Whether the tokens from `index` on read `words`: unquoted words in any case, or single characters.
    pub fn reads(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(offset, word)| self.tokens.get(index + offset).is_some_and(|token| is(&token.token, word)))
    }

    /// Where `words` first stand in a row, at or behind `from`.
    pub fn find(&self, words: &[&str], from: Place) -> Option<Place> {
        (0..self.tokens.len())
            .map(|index| (index, self.place(index)))
            .find(|(index, place)| *place >= from && self.reads(*index, words))
            .map(|(_, place)| place)
    }

    /// The unquoted word at `index`, in capitals.
    pub fn word(&self, index: usize) -> Option<String> {
        match self.tokens.get(index).map(|token| &token.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => Some(word.value.to_uppercase()),
            _ => None,
        }
    }

    /// Whether the statement names `name`, folded as SQL folds it.
    pub fn names(&self, name: &str) -> Option<Place> {
        self.tokens
            .iter()
            .position(|token| matches!(&token.token, Token::Word(word) if fold(&word.value, word.quote_style) == name))
            .map(|index| self.place(index))
    }
}

/// A name as SQL reads it: unquoted letters fold to lower case, quoted stay.
pub(super) fn fold(name: &str, quote: Option<char>) -> String {
    if quote.is_some() { name.to_owned() } else { name.to_lowercase() }
}

fn is(token: &Token, word: &str) -> bool {
    match token {
        Token::Word(each) => each.quote_style.is_none() && each.value.eq_ignore_ascii_case(word),
        other => other.to_string() == word,
    }
}

/// Splits a file into its statements.
pub(super) fn statements(text: &str) -> Checked<Vec<Tokens>> {
    let tokens = Tokenizer::new(&DIALECT, text).tokenize_with_location().map_err(|error| {
        let end = error.message.starts_with("Unterminated").then_some("close it");
        let complaint = Complaint::new(at(error.location), sentence(&error.message));
        end.map_or(complaint.clone(), |help| complaint.help(help))
    })?;
    let mut statements = Vec::new();
    let mut open: Vec<TokenWithSpan> = Vec::new();
    let mut end = Place::START;
    let mut close = |open: &mut Vec<TokenWithSpan>, end: Place| {
        if !open.is_empty() {
            statements.push(Tokens { tokens: std::mem::take(open), end });
        }
    };
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => continue,
            Token::SemiColon => close(&mut open, end),
            _ => {
                end = at(token.span.end).unwrap_or(end);
                open.push(token);
            }
        }
    }
    close(&mut open, end);
    for statement in &mut statements {
        free(&mut statement.tokens);
        foreign(statement)?;
    }
    Ok(statements)
}

/// Lets columns have names that begin something only with the right token behind them: `interval` is one unless a number follows.
fn free(tokens: &mut [TokenWithSpan]) {
    for index in 0..tokens.len() {
        let (here, behind) = tokens.split_at_mut(index + 1);
        let next = behind.first().map(|token| &token.token);
        let Some(Token::Word(word)) = here.last_mut().map(|token| &mut token.token) else { continue };
        let call = matches!(next, Some(Token::LParen));
        let literal = matches!(next, Some(Token::Number(..) | Token::SingleQuotedString(_)));
        let special = match word.keyword {
            Keyword::USER => false,
            Keyword::INTERVAL => call || literal || matches!(next, Some(Token::Minus)),
            Keyword::TOP => call || literal,
            Keyword::STRUCT => call || matches!(next, Some(Token::Lt)),
            Keyword::TRIM | Keyword::EXISTS | Keyword::CUBE | Keyword::ROLLUP => call,
            _ => true,
        };
        if !special {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// The first letter small, as after `error:`.
pub(super) fn sentence(message: &str) -> String {
    let mut letters = message.chars();
    match letters.next() {
        Some(first) if !message.starts_with(|c: char| c.is_uppercase()) || message.chars().nth(1).is_some_and(char::is_uppercase) => {
            format!("{first}{}", letters.as_str())
        }
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Word sequences of other systems, what is wrong with them here and what to write.
const FOREIGN: &[(&[&str], &str, &str)] = &[
    (
        &["CREATE", "SINK"],
        "there is no CREATE SINK here",
        "write CREATE TABLE name (columns) WITH (connector = …) and INSERT INTO name SELECT …",
    ),
    (&["CREATE", "SOURCE"], "there is no CREATE SOURCE here", "write CREATE TABLE name (columns) WITH (connector = …)"),
    (
        &["CREATE", "STREAM"],
        "there is no CREATE STREAM here",
        "write CREATE TABLE name (columns) WITH (connector = …), or CREATE MATERIALIZED VIEW name AS SELECT …",
    ),
    (
        &["EMIT", "ON", "WINDOW", "CLOSE"],
        "there is no EMIT ON WINDOW CLOSE here",
        "write CREATE MATERIALIZED VIEW name WITH (emit = 'final') AS SELECT …; with windows that is the default",
    ),
    (
        &["EMIT", "FINAL"],
        "there is no EMIT FINAL here",
        "write CREATE MATERIALIZED VIEW name WITH (emit = 'final') AS SELECT …; with windows that is the default",
    ),
    (&["EMIT", "CHANGES"], "there is no EMIT CHANGES here", "write CREATE MATERIALIZED VIEW name WITH (emit = 'changes') AS SELECT …"),
    (&["TABLE", "(", "TUMBLE", "("], "Flink's TABLE(TUMBLE(…)) is not read here", "write FROM tumble(t, ts, INTERVAL '1 minute')"),
    (
        &["TABLE", "(", "HOP", "("],
        "Flink's TABLE(HOP(…)) is not read here",
        "write FROM hop(t, ts, INTERVAL '1 minute', INTERVAL '10 minutes'): first the slide, then the size",
    ),
    (
        &["TABLE", "(", "SESSION", "("],
        "Flink's TABLE(SESSION(…)) is not read here",
        "write FROM session(t, ts, INTERVAL '10 minutes', key)",
    ),
    (
        &["TABLE", "(", "CUMULATE", "("],
        "there is no CUMULATE window here",
        "write CREATE MATERIALIZED VIEW name WITH (emit = 'changes') AS SELECT … FROM tumble(t, ts, INTERVAL '1 day')",
    ),
    (&["DESCRIPTOR", "("], "DESCRIPTOR(…) is not read here", "name the time column itself: FROM tumble(t, ts, INTERVAL '1 minute')"),
    (&["FOR", "SYSTEM_TIME"], "FOR SYSTEM_TIME AS OF is not read here", "write a ASOF JOIN b MATCH_CONDITION (a.ts >= b.ts) ON a.k = b.k"),
    (&["MATCH_RECOGNIZE"], "MATCH_RECOGNIZE is not supported", "write the steps with ROW_NUMBER and windowed aggregates"),
    (
        &["WINDOW", "TUMBLING"],
        "ksqlDB's WINDOW TUMBLING is not read here",
        "write FROM tumble(t, ts, INTERVAL '1 minute') and GROUP BY window_start, window_end",
    ),
    (
        &["WINDOW", "HOPPING"],
        "ksqlDB's WINDOW HOPPING is not read here",
        "write FROM hop(t, ts, INTERVAL '1 minute', INTERVAL '10 minutes'), first the slide, then the size, and GROUP BY window_start, window_end",
    ),
    (
        &["WINDOW", "SESSION", "("],
        "ksqlDB's WINDOW SESSION is not read here",
        "write FROM session(t, ts, INTERVAL '10 minutes', key) and GROUP BY window_start, window_end, key",
    ),
    (&["GRACE", "PERIOD"], "GRACE PERIOD is not read here", "write CREATE MATERIALIZED VIEW name WITH (lateness = '1 hour') AS SELECT …"),
    (
        &["PROCTIME", "("],
        "there is no processing time here: the same rows must give the same result",
        "use the event's own time: the WATERMARK column or _timestamp",
    ),
    (
        &["MZ_NOW", "("],
        "mz_now() has no one answer: the same rows must give the same result",
        "bound the rows by a window over the event's own time: FROM tumble(t, ts, INTERVAL '1 minute')",
    ),
    (&["WITH", "TTL"], "WITH TTL is not read here", "write CREATE MATERIALIZED VIEW name WITH (state_ttl = '1 day') AS SELECT …"),
    (&["WITH", "MUTUALLY", "RECURSIVE"], "a recursive WITH is not supported", "its rounds have no bound; write the steps as views"),
    (&["WITH", "NO", "DATA"], "WITH NO DATA is not read here", "leave it out: a view is filled by tidemill run"),
    (&["FORMAT", "PLAIN"], "FORMAT … ENCODE … is not read here", "write WITH (…, format = 'json')"),
    (&["FORMAT", "UPSERT"], "FORMAT … ENCODE … is not read here", "write WITH (…, format = 'json'), and declare a PRIMARY KEY"),
    (&["FORMAT", "DEBEZIUM"], "FORMAT … ENCODE … is not read here", "write WITH (…, format = 'json') and declare the fields you read"),
    (&["ENVELOPE", "NONE"], "ENVELOPE is not read here", "leave it out: a source without PRIMARY KEY only appends"),
    (&["ENVELOPE", "UPSERT"], "ENVELOPE is not read here", "declare a PRIMARY KEY instead"),
    (&["ENVELOPE", "DEBEZIUM"], "ENVELOPE is not read here", "declare the fields you read"),
    (&["APPEND", "ONLY"], "APPEND ONLY is not read here", "leave it out: a source without PRIMARY KEY only appends"),
    (&["INCLUDE", "KEY"], "INCLUDE is not read here", "every Kafka source has _topic, _partition, _offset, _timestamp, _key"),
    (&["INCLUDE", "OFFSET"], "INCLUDE is not read here", "every Kafka source has _topic, _partition, _offset, _timestamp, _key"),
    (&["INCLUDE", "PARTITION"], "INCLUDE is not read here", "every Kafka source has _topic, _partition, _offset, _timestamp, _key"),
    (&["INCLUDE", "TIMESTAMP"], "INCLUDE is not read here", "every Kafka source has _topic, _partition, _offset, _timestamp, _key"),
    (
        &["FROM", "KAFKA", "CONNECTION"],
        "FROM KAFKA CONNECTION is not read here",
        "write WITH (connector = 'kafka', topic = 'clicks', format = 'json')",
    ),
    (&["INCLUDING", "ALL"], "LIKE … INCLUDING is not read here", "write the columns: CREATE TABLE name (column TYPE, …) WITH (…)"),
    (&["PARTITIONED", "BY"], "PARTITIONED BY is not read here", "leave it out: a topic brings its partitions along"),
];

fn foreign(statement: &Tokens) -> Checked<()> {
    for (index, token) in statement.all().iter().enumerate() {
        if let Token::Word(word) = &token.token {
            if let Some((_, message, help)) = FOREIGN.iter().find(|(words, ..)| statement.reads(index, words)) {
                return Err(Complaint::new(statement.place(index), *message).help(*help));
            }
            if word.quote_style == Some('`') {
                let name = &word.value;
                return Err(
                    Complaint::new(statement.place(index), "names are not quoted with backticks here").help(format!("write \"{name}\""))
                );
            }
            if word.keyword == Keyword::NoKeyword && word.quote_style.is_none() && word.value.starts_with('@') {
                return Err(Complaint::new(statement.place(index), format!("there are no variables such as {}", word.value)));
            }
        }
        if matches!(token.token, Token::Placeholder(_)) {
            return Err(Complaint::new(statement.place(index), "there are no parameters in a pipeline").help("write the value"));
        }
    }
    Ok(())
}

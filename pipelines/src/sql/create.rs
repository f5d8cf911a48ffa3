//! CREATE TABLE: columns, WATERMARK, PRIMARY KEY and WITH, read from tokens.
//!
//! Always: a column may be called anything (key, index, value, timestamp, watermark): the list is read here, not by the SQL parser,
//! which takes such words for MySQL's indexes; types and expressions are read by it. Called by `parse`.

use datafusion::sql::sqlparser::ast::{BinaryOperator, DataType as SqlType, Expr, Spanned};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::context::HIDDEN;
use super::duration;
use super::error::{Checked, Complaint, at, place};
use super::lex::{DIALECT, Tokens, fold, sentence};
use super::options::{self, Options, SqlOption};
use super::program::{Connector, Place, Sink, SinkConnector, Source, SourceColumn, Watermark};
use super::types::{self, TIMESTAMP};

/// Reads one statement's tokens; every place it gives is exact.
pub(super) struct Reader<'a> {
    pub parser: Parser<'a>,
    end: Place,
}

/// A name with its place.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub folded: String,
    pub spelled: String,
    pub at: Place,
}

impl Reader<'_> {
    pub fn new(tokens: &Tokens) -> Self {
        Self { parser: Parser::new(&DIALECT).with_tokens_with_locations(tokens.all().to_vec()), end: tokens.end }
    }

    /// A reader standing behind the first `skip` tokens.
    pub fn behind(tokens: &Tokens, skip: usize) -> Self {
        let mut reader = Self::new(tokens);
        (0..skip).for_each(|_| reader.parser.advance_token());
        reader
    }

    /// A text in single quotes.
    pub fn text(&mut self, what: &str) -> Checked<String> {
        match &self.peek().token {
            Token::SingleQuotedString(text) => {
                let text = text.clone();
                self.parser.advance_token();
                Ok(text)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// The place of the next token.
    pub fn here(&self) -> Place {
        at(self.parser.peek_token_ref().span.start).unwrap_or(self.end)
    }

    fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    /// Takes `word` if it comes next, unquoted.
    pub fn takes(&mut self, word: &str) -> bool {
        let found = match &self.peek().token {
            Token::Word(each) => each.quote_style.is_none() && each.value.eq_ignore_ascii_case(word),
            Token::EOF => false,
            other => other.to_string() == word,
        };
        if found {
            self.parser.advance_token();
        }
        found
    }

    /// Takes all of `words` or none.
    pub fn takes_all(&mut self, words: &[&str]) -> bool {
        for (taken, word) in words.iter().enumerate() {
            if !self.takes(word) {
                (0..taken).for_each(|_| self.parser.prev_token());
                return false;
            }
        }
        true
    }

    pub fn expect(&mut self, word: &str) -> Checked<()> {
        if self.takes(word) { Ok(()) } else { Err(self.unexpected(word)) }
    }

    /// A complaint about the next token.
    pub fn unexpected(&self, expected: &str) -> Complaint {
        match &self.peek().token {
            Token::EOF => Complaint::new(self.end, format!("expected {expected}, but the statement ends here")),
            found => Complaint::new(self.here(), format!("expected {expected}, found {found}")),
        }
    }

    pub fn name(&mut self, what: &str) -> Checked<Name> {
        let at = self.here();
        match &self.peek().token {
            Token::Word(word) => {
                let name = Name { folded: fold(&word.value, word.quote_style), spelled: word.value.clone(), at };
                self.parser.advance_token();
                Ok(name)
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// Runs one of the SQL parser's own functions; its errors get a place.
    pub fn parse<T>(&mut self, read: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>) -> Checked<T> {
        let begun = self.here();
        read(&mut self.parser).map_err(|error| translate(&error, begun, self.end))
    }

    /// Nothing may be left.
    pub fn finish(&self, after: &str) -> Checked<()> {
        match &self.peek().token {
            Token::EOF => Ok(()),
            found => {
                Err(Complaint::new(self.here(), format!("{found} is not expected after {after}"))
                    .help("end the statement with a semicolon"))
            }
        }
    }

    /// `WITH (name = 'value', …)`; none when there is no WITH.
    pub fn options(&mut self) -> Checked<Options> {
        let begun = self.here();
        let mut options = Vec::new();
        if !self.takes("WITH") {
            return Options::new(options, begun);
        }
        self.expect("(")?;
        while !self.takes(")") {
            let at = self.here();
            let mut name = match &self.peek().token {
                Token::Word(word) => word.value.clone(),
                Token::SingleQuotedString(text) => text.clone(),
                _ => return Err(self.unexpected("the name of an option")),
            };
            self.parser.advance_token();
            while self.takes(".") {
                name = format!("{name}.{}", self.name("the rest of the option's name")?.spelled);
            }
            self.expect("=")?;
            let value_at = self.here();
            let value = match &self.peek().token {
                Token::SingleQuotedString(text) => text.clone(),
                Token::Number(number, _) => number.clone(),
                Token::Word(word) if ["TRUE", "FALSE"].contains(&word.value.to_uppercase().as_str()) => word.value.to_lowercase(),
                _ => return Err(self.unexpected("the option's value in single quotes")),
            };
            self.parser.advance_token();
            options.push(SqlOption { name: name.to_lowercase(), at, value, value_at });
            if !self.takes(",") && !matches!(self.peek().token, Token::RParen) {
                return Err(self.unexpected(", or )"));
            }
        }
        Options::new(options, begun)
    }
}

/// A parser's error at its place. Its text ends in ` at Line: L, Column: C` unless it met the end of the file.
fn translate(error: &ParserError, begun: Place, end: Place) -> Complaint {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => return Complaint::new(begun, "this is nested too deeply"),
    };
    let (message, found) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => {
            let mut numbers = place.split(", Column: ").map(str::parse::<u64>);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(line)), Some(Ok(column))) => (message, Some(Place { line, column })),
                _ => (text, None),
            }
        }
        None => (text, None),
    };
    let message = message.trim_end_matches(", found: EOF").replace("Expected: ", "expected ").replace(", found: ", ", found ");
    let ends = text.contains("found: EOF");
    let message = if ends { format!("{message}, but the statement ends here") } else { message };
    Complaint::new(found.unwrap_or(if ends { end } else { begun }), sentence(&message))
}

/// Reads a source: `CREATE TABLE name (…) WITH (…)`, the reader standing behind TABLE.
pub(super) fn table(reader: &mut Reader<'_>) -> Checked<Source> {
    let Declared { name, list: List { mut columns, watermark, primary_key }, options } = declared(reader)?;
    let watermark = watermark.map(|(watermark, at)| check_watermark(watermark, at, &columns)).transpose()?;
    let primary_key = primary_key.unwrap_or_default();
    let options = options::source(options, &columns, primary_key.len())?;
    check_key(&primary_key, &mut columns, watermark.as_ref())?;
    let watermark = watermark.or_else(|| default_watermark(&primary_key, &options.connector));
    let primary_key = primary_key.into_iter().map(|key| key.folded).collect();
    Ok(Source { name: name.folded, columns, watermark, primary_key, options, at: name.at })
}

/// Reads a sink, which is declared like a source.
pub(super) fn sink(reader: &mut Reader<'_>) -> Checked<Sink> {
    let Declared { name, list: List { columns, watermark, primary_key }, options } = declared(reader)?;
    if let Some((_, at)) = watermark {
        return Err(Complaint::new(at, format!("{} is a sink (INSERT INTO writes to it), and a sink has no WATERMARK", name.folded))
            .help("leave it out; results carry the times of their windows"));
    }
    let key_at = primary_key.as_ref().and_then(|key| key.first()).map(|key| key.at);
    let primary_key: Vec<String> = primary_key.unwrap_or_default().into_iter().map(|key| key.folded).collect();
    let connector = options::sink(options, primary_key.len())?;
    if let (Some(at), SinkConnector::File { .. }) = (key_at, &connector) {
        return Err(Complaint::new(at, "files can't take results back, so a file sink has no PRIMARY KEY")
            .help("leave it out: each result is written once, when it is final; or read the materialized view's table"));
    }
    Ok(Sink { name: name.folded, columns, primary_key, connector, at: name.at })
}

/// What sources and sinks have in common.
struct Declared {
    name: Name,
    list: List,
    options: Options,
}

fn declared(reader: &mut Reader<'_>) -> Checked<Declared> {
    let name = reader.name("the table's name")?;
    if reader.takes(".") {
        return Err(Complaint::new(name.at, "a table's name has one part here").help("SET pipeline = 'name' names the pipeline"));
    }
    let here = reader.here();
    if reader.takes("AS") {
        return Err(
            Complaint::new(here, "CREATE TABLE … AS SELECT is not an output here").help("write CREATE MATERIALIZED VIEW name AS SELECT …")
        );
    }
    if reader.takes("LIKE") {
        return Err(Complaint::new(here, "LIKE is not read here").help("write the columns: CREATE TABLE name (column TYPE, …) WITH (…)"));
    }
    if !matches!(reader.peek().token, Token::LParen) {
        return Err(reader
            .unexpected("( and the columns")
            .help("a source declares its columns: CREATE TABLE name (column TYPE, …) WITH (…)"));
    }
    let columns_at = reader.here();
    reader.expect("(")?;
    let mut list = List::default();
    loop {
        list.entry(reader)?;
        if reader.takes(")") {
            break;
        }
        if !reader.takes(",") {
            return Err(reader.unexpected(", or )"));
        }
    }
    let options = reader.options()?;
    reader.finish("the WITH options")?;
    if list.columns.is_empty() {
        return Err(Complaint::new(columns_at, format!("{} has no columns", name.folded)));
    }
    for key in list.primary_key.iter().flatten() {
        if !list.columns.iter().any(|column| column.name == key.folded) {
            let complaint = Complaint::new(key.at, format!("PRIMARY KEY: there is no column {}", key.folded));
            return Err(complaint.suggest(&key.folded, list.columns.iter().map(|column| column.name.as_str())));
        }
    }
    Ok(Declared { name, list, options })
}

/// A key's columns are never NULL, each is named once, and each is of a type whose values are equal or not.
fn check_key(key: &[Name], columns: &mut [SourceColumn], watermark: Option<&Watermark>) -> Checked<()> {
    for (index, name) in key.iter().enumerate() {
        let Some(column) = columns.iter_mut().find(|column| column.name == name.folded) else { continue };
        if key.iter().take(index).any(|other| other.folded == name.folded) {
            return Err(Complaint::new(name.at, format!("PRIMARY KEY names {} twice", name.folded)).help("name it once"));
        }
        if column.data_type.is_floating() || column.data_type.is_nested() {
            let message = format!("PRIMARY KEY: {} is {}, which names no row", column.name, types::sql_name(&column.data_type));
            return Err(Complaint::new(name.at, message).help("choose columns of whole numbers, DECIMAL, VARCHAR, DATE or TIMESTAMP"));
        }
        if watermark.is_some_and(|watermark| watermark.column == column.name) {
            let message = format!("{} is the time of a change, so it can't be part of the key that is changed", column.name);
            return Err(Complaint::new(name.at, message).help("leave PRIMARY KEY out: rows that are never replaced are a plain stream"));
        }
        column.nullable = false;
    }
    Ok(())
}

/// The changes of a changelog that names no time happen when their records were written. A file's records don't say.
fn default_watermark(key: &[Name], connector: &Connector) -> Option<Watermark> {
    let stamped = !key.is_empty() && !matches!(connector, Connector::File { .. });
    stamped.then(|| Watermark { column: "_timestamp".to_owned(), delay_us: 0 })
}

/// What stands between a table's parentheses.
#[derive(Default)]
struct List {
    columns: Vec<SourceColumn>,
    watermark: Option<(Watermark, Place)>,
    primary_key: Option<Vec<Name>>,
}

impl List {
    fn entry(&mut self, reader: &mut Reader<'_>) -> Checked<()> {
        let at = reader.here();
        if reader.takes_all(&["WATERMARK", "FOR"]) {
            let watermark = watermark(reader)?;
            if self.watermark.replace((watermark, at)).is_some() {
                return Err(Complaint::new(at, "a source has one WATERMARK"));
            }
            return Ok(());
        }
        if reader.takes_all(&["PRIMARY", "KEY", "("]) {
            let mut keys = vec![reader.name("a column")?];
            while reader.takes(",") {
                keys.push(reader.name("a column")?);
            }
            reader.expect(")")?;
            let enforced = reader.here();
            if reader.takes_all(&["NOT", "ENFORCED"]) {
                return Err(Complaint::new(enforced, "NOT ENFORCED is not read here").help("leave it out"));
            }
            return self.set_key(keys, at);
        }
        for (words, help) in [
            (&["UNIQUE", "("][..], "write PRIMARY KEY (columns) for a changelog; a stream has no constraints"),
            (&["FOREIGN", "KEY"], "leave it out"),
            (&["CHECK", "("], "filter with WHERE in a view"),
            (&["CONSTRAINT"], "leave the name out: PRIMARY KEY (columns)"),
        ] {
            let mut probe = false;
            // A column may be called `constraint`; a constraint has a name and a kind behind it.
            if reader.takes_all(words) {
                probe = words != ["CONSTRAINT"] || reader.takes_all(&["PRIMARY"]) || constraint_follows(reader);
                if !probe {
                    reader.parser.prev_token();
                }
            }
            if probe {
                return Err(Complaint::new(at, format!("{} is not supported here", words[0])).help(help));
            }
        }
        self.column(reader)
    }

    fn set_key(&mut self, keys: Vec<Name>, at: Place) -> Checked<()> {
        match self.primary_key.replace(keys) {
            None => Ok(()),
            Some(_) => Err(Complaint::new(at, "a table has one PRIMARY KEY")),
        }
    }

    fn column(&mut self, reader: &mut Reader<'_>) -> Checked<()> {
        let name = reader.name("a column's name")?;
        if HIDDEN.contains(&name.folded.as_str()) {
            let message = format!("{} is a hidden column that every source has; it can't be declared", name.folded);
            return Err(Complaint::new(name.at, message).help("name it in a query, or in WATERMARK FOR _timestamp"));
        }
        if let Some(other) = self.columns.iter().find(|column| column.name == name.folded) {
            let help =
                if other.spelled == name.spelled { "rename one" } else { "unquoted names fold to lower case; write them in double quotes" };
            return Err(Complaint::new(name.at, format!("there are two columns {}", name.folded)).help(help));
        }
        let type_at = reader.here();
        if matches!(reader.peek().token, Token::Comma | Token::RParen | Token::EOF) {
            return Err(reader.unexpected(&format!("the type of {}", name.folded)));
        }
        for (words, message, help) in [
            (
                &["AS"][..],
                "computed columns are not supported in a source",
                "compute it in a view: CREATE VIEW v AS SELECT *, expression AS name FROM …",
            ),
            (&["MAP", "<"], "the type MAP is not supported", "declare the keys you read as a STRUCT<…>"),
        ] {
            if reader.takes_all(words) {
                return Err(Complaint::new(type_at, message).help(help));
            }
        }
        let sql_type = reader.parse(|parser| parser.parse_data_type())?;
        let data_type = types::arrow_type(&sql_type).map_err(|(message, help)| Complaint::new(type_at, message).help(help))?;
        let timestamp_precision = match &sql_type {
            SqlType::Timestamp(digits, _) => Some(digits.and_then(|digits| u8::try_from(digits).ok()).unwrap_or(6)),
            _ => None,
        };
        let mut nullable = true;
        loop {
            let at = reader.here();
            if reader.takes_all(&["NOT", "NULL"]) {
                nullable = false;
            } else if reader.takes("NULL") {
            } else if reader.takes_all(&["PRIMARY", "KEY"]) {
                self.set_key(vec![name.clone()], at)?;
            } else if reader.takes("AS") || reader.takes("GENERATED") {
                let help = format!("compute it in a view: CREATE VIEW v AS SELECT *, … AS {} FROM …", name.folded);
                return Err(Complaint::new(at, "computed columns are not supported in a source").help(help));
            } else if reader.takes("DEFAULT") {
                let help = format!("write coalesce({}, …) in a view", name.folded);
                return Err(Complaint::new(at, "DEFAULT is not supported in a source").help(help));
            } else if reader.takes("CHECK") || reader.takes("UNIQUE") || reader.takes("REFERENCES") {
                return Err(Complaint::new(at, "a stream has no constraints but NOT NULL").help("filter with WHERE in a view"));
            } else if reader.takes("METADATA") {
                return Err(Complaint::new(at, "METADATA is not read here")
                    .help("every Kafka source has _topic, _partition, _offset, _timestamp, _key"));
            } else if matches!(reader.peek().token, Token::Comma | Token::RParen) {
                break;
            } else {
                return Err(reader.unexpected(", or )"));
            }
        }
        self.columns.push(SourceColumn { name: name.folded, spelled: name.spelled, data_type, nullable, timestamp_precision, at: name.at });
        Ok(())
    }
}

fn constraint_follows(reader: &Reader<'_>) -> bool {
    let next = reader.parser.peek_nth_token(1);
    matches!(&next.token, Token::Word(word) if ["PRIMARY", "UNIQUE", "FOREIGN", "CHECK"].contains(&word.value.to_uppercase().as_str()))
}

/// `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'`, the reader standing behind FOR.
fn watermark(reader: &mut Reader<'_>) -> Checked<Watermark> {
    let column = reader.name("the time column")?;
    reader.expect("AS")?;
    let expr_at = reader.here();
    let expr = reader.parse(|parser| parser.parse_expr())?;
    let wrong = || {
        Complaint::new(expr_at, "a watermark trails its column by a fixed time")
            .help(format!("write WATERMARK FOR {0} AS {0} - INTERVAL '5 seconds'", column.spelled))
    };
    let is_column = |expr: &Expr| matches!(expr, Expr::Identifier(ident) if fold(&ident.value, ident.quote_style) == column.folded);
    let delay_us = match &expr {
        expr if is_column(expr) => 0,
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
            let delay = duration::interval(right).map_err(|complaint| complaint.or_at(place(right.span()).unwrap_or(expr_at)))?;
            if delay < 0 {
                return Err(wrong());
            }
            delay
        }
        _ => return Err(wrong()),
    };
    Ok(Watermark { column: column.folded, delay_us })
}

fn check_watermark(watermark: Watermark, at: Place, columns: &[SourceColumn]) -> Checked<Watermark> {
    if watermark.column == "_timestamp" {
        return Ok(watermark);
    }
    match columns.iter().find(|column| column.name == watermark.column) {
        Some(column) if column.data_type != TIMESTAMP => {
            let message = format!("WATERMARK FOR {}: the column is {}, not TIMESTAMP", column.name, types::sql_name(&column.data_type));
            let help = format!("declare it as {} TIMESTAMP(3) NOT NULL; numbers are read by timestamp_unit", column.spelled);
            Err(Complaint::new(at, message).help(help))
        }
        Some(_) => Ok(watermark),
        None => {
            let complaint = Complaint::new(at, format!("WATERMARK FOR {0}: there is no column {0}", watermark.column));
            Err(complaint.suggest(&watermark.column, columns.iter().map(|column| column.name.as_str()).chain(["_timestamp"])))
        }
    }
}

//! A pipeline file to a `Program`: which statement it is, and what each declares.
//!
//! Always: a statement that is not one of ours is refused with what to write; a name is declared once; a query is checked (`refuse`)
//! where it stands. Nothing is planned here. The entry is `parse`.

use std::path::Path;

use datafusion::sql::sqlparser::ast::{Query, Spanned};

use super::asof::wrap_asof;
use super::create::{self, Name, Reader};
use super::error::{Checked, Complaint, SqlError};
use super::lex::{self, Tokens};
use super::literals::approximate;
use super::options::{self, Options};
use super::program::{Connector, Insert, Output, Place, Program, SinkConnector, Source, View};
use super::refuse;

/// Names of pipelines that are schemas of our own.
const RESERVED: &[&str] = &["tidemill", "state", "information_schema"];

/// Letters of a pipeline's name.
const NAME_MAX: usize = 64;

/// Tables every pipeline has.
const OURS: &[&str] = &["dead_letters", "late_events"];

/// Reads a pipeline file. `file` names it in errors and, without SET pipeline, the pipeline.
pub fn parse(file: &str, text: &str) -> Result<Program, SqlError> {
    read(file, text).map_err(|complaint| complaint.in_file(file))
}

fn read(file: &str, text: &str) -> Checked<Program> {
    let statements = lex::statements(text)?;
    let targets = insert_targets(&statements);
    let mut parsing = Parsing {
        program: Program {
            file: file.to_owned(),
            name: String::new(),
            sources: Vec::new(),
            sinks: Vec::new(),
            views: Vec::new(),
            outputs: Vec::new(),
        },
        targets,
    };
    for statement in &statements {
        parsing.statement(statement)?;
    }
    let Parsing { mut program, .. } = parsing;
    check_inserts(&program)?;
    if program.name.is_empty() {
        program.name = default_name(file)?;
    }
    Ok(program)
}

/// The file's stem, or the folder's name for `pipeline.sql`.
fn default_name(file: &str) -> Checked<String> {
    let path = Path::new(file);
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let folder = || {
        let absolute = std::path::absolute(path).ok()?;
        Some(absolute.parent()?.file_name()?.to_str()?.to_owned())
    };
    let name = if stem == "pipeline" { folder().unwrap_or_else(|| stem.to_owned()) } else { stem.to_owned() };
    let wrong = |complaint: Complaint| {
        let help = format!("write SET pipeline = '{}'; as the first statement, or rename the file", usable(&name));
        Complaint::new(complaint.at, format!("the file's name is the pipeline's, but {}", complaint.message)).help(help)
    };
    pipeline_name(&name.to_lowercase(), Place::START).map_err(wrong)
}

/// A pipeline's name that is like `name`.
fn usable(name: &str) -> String {
    let fits = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let folded: String = name.to_lowercase().chars().map(fits).take(NAME_MAX).collect();
    match folded.trim_matches('_') {
        "" => "name".to_owned(),
        reserved if RESERVED.contains(&reserved) => format!("my_{reserved}"),
        trimmed => trimmed.to_owned(),
    }
}

fn pipeline_name(name: &str, at: Place) -> Checked<String> {
    let help = format!("write SET pipeline = '{}'; as the first statement", usable(name));
    if RESERVED.contains(&name) {
        return Err(Complaint::new(at, format!("a pipeline can't be called {name}: Tidemill's own tables are there")).help(help));
    }
    if name.is_empty()
        || name.len() > NAME_MAX
        || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    {
        let message = format!("a pipeline's name has 1 to 64 of a to z, 0 to 9 and _; '{name}' is none");
        return Err(Complaint::new(at, message).help(help));
    }
    Ok(name.to_owned())
}

/// Tables that INSERT writes to: they are sinks, not sources.
fn insert_targets(statements: &[Tokens]) -> Vec<String> {
    let insert = |tokens: &&Tokens| tokens.reads(0, &["INSERT", "INTO"]);
    let target = |tokens: &Tokens| Reader::behind(tokens, 2).name("a table").ok().map(|name| name.folded);
    statements.iter().filter(insert).filter_map(target).collect()
}

struct Parsing {
    program: Program,
    targets: Vec<String>,
}

impl Parsing {
    fn statement(&mut self, tokens: &Tokens) -> Checked<()> {
        let at = tokens.start();
        let reads = |words: &[&str]| tokens.reads(0, words);
        if reads(&["SET"]) {
            return self.set(tokens);
        }
        if reads(&["INSERT"]) {
            return self.insert(tokens);
        }
        if reads(&["CREATE"]) {
            return self.create(tokens);
        }
        let help = match tokens.word(0).as_deref() {
            Some("SELECT" | "WITH" | "FROM" | "VALUES" | "TABLE") => {
                "write CREATE MATERIALIZED VIEW name AS SELECT …; tidemill sql runs queries"
            }
            Some("DROP") => "leave the statement that creates it out of the file",
            Some("ALTER") => "change the CREATE statement, then run with --reset",
            Some("UPDATE" | "DELETE" | "MERGE" | "TRUNCATE" | "REPLACE" | "UPSERT") => "a table follows from its SELECT; change that",
            Some("EXPLAIN" | "DESCRIBE" | "DESC" | "SHOW" | "ANALYZE") => "tidemill check FILE.sql shows the plan",
            Some("USE") => "write SET pipeline = 'name'",
            Some("SUBSCRIBE" | "TAIL" | "LISTEN" | "NOTIFY" | "FETCH" | "DECLARE") => {
                "\"table$log\" has every change of a table: tidemill sql -c 'SELECT * FROM \"name$log\"'"
            }
            Some("COPY") => "tidemill sql --format csv writes a query's rows; a source reads files with connector = 'file'",
            Some("GRANT" | "REVOKE") => "leave it out: who may read the tables' files, may read the tables",
            Some("REFRESH") => "leave it out: a materialized view is kept up to date by tidemill run",
            Some("ADD") => "leave it out: there are no functions and no libraries of your own",
            Some("BEGIN" | "COMMIT" | "START" | "ROLLBACK" | "EXECUTE") => "leave it out: each epoch is one transaction",
            _ => STATEMENTS,
        };
        let found = tokens.all().first().map(|token| token.token.to_string()).unwrap_or_default();
        Err(Complaint::new(at, format!("{found} is no statement of a pipeline")).help(help))
    }

    /// `SET pipeline = 'name'`.
    fn set(&mut self, tokens: &Tokens) -> Checked<()> {
        let mut reader = Reader::behind(tokens, 1);
        let name = reader.name("pipeline")?;
        if name.folded != "pipeline" {
            let message = format!("there is no setting {}; there is pipeline", name.folded);
            return Err(Complaint::new(name.at, message).help("options go behind WITH, or on the command line"));
        }
        if !reader.takes("=") {
            reader.expect("TO").map_err(|_| reader.unexpected("="))?;
        }
        let at = reader.here();
        let value = reader.text("the pipeline's name in single quotes")?;
        reader.finish("SET pipeline")?;
        if !self.program.name.is_empty() {
            return Err(Complaint::new(tokens.start(), "the pipeline has its name already").help("write SET pipeline once"));
        }
        self.program.name = pipeline_name(&value, at)?;
        Ok(())
    }

    fn create(&mut self, tokens: &Tokens) -> Checked<()> {
        let mut reader = Reader::behind(tokens, 1);
        let at = reader.here();
        if reader.takes_all(&["OR", "REPLACE"]) {
            return Err(
                Complaint::new(at, "OR REPLACE is not read here").help("a changed output is named by tidemill run; --reset begins anew")
            );
        }
        if reader.takes_all(&["MATERIALIZED", "VIEW"]) {
            return self.output(reader, tokens);
        }
        if reader.takes("VIEW") {
            return self.view(reader, tokens);
        }
        if reader.takes("TABLE") {
            return self.table(reader, tokens);
        }
        let help = match tokens.word(1).as_deref() {
            Some("TEMPORARY" | "TEMP") => "write CREATE VIEW: it keeps nothing",
            Some("CONNECTION" | "SECRET") => {
                "leave it out: brokers are named by WITH (brokers = …) or --brokers, what they want by --kafka"
            }
            Some("TRIGGER" | "RULE" | "SUBSCRIPTION" | "PUBLICATION") => {
                "leave it out: other programs read the tables, or a topic that INSERT INTO fills"
            }
            Some("SEQUENCE") => "leave it out: a record's own number is _partition, _offset",
            Some("TYPE") => "write the type at the column: STRUCT<…>",
            Some("EXTERNAL" | "UNBOUNDED" | "FOREIGN") => "write CREATE TABLE name (columns) WITH (connector = …)",
            Some("INDEX" | "UNIQUE") => "leave it out: a table is kept by its key",
            Some("FUNCTION" | "AGGREGATE" | "MACRO") => "there are no functions of your own; write the expression in a view",
            Some("DATABASE" | "SCHEMA" | "CATALOG") => "write SET pipeline = 'name': its tables are name.table",
            _ => STATEMENTS,
        };
        Err(Complaint::new(tokens.start(), format!("CREATE {} is no statement of a pipeline", tokens.word(1).unwrap_or_default()))
            .help(help))
    }

    fn table(&mut self, mut reader: Reader<'_>, tokens: &Tokens) -> Checked<()> {
        self.exists(&mut reader)?;
        let mut probe = Reader::behind(tokens, 2);
        let name = probe.name("the table's name")?;
        if self.targets.contains(&name.folded) {
            let sink = create::sink(&mut reader)?;
            self.declare(&Name { folded: sink.name.clone(), spelled: sink.name.clone(), at: sink.at })?;
            self.program.sinks.push(sink);
            return Ok(());
        }
        let source = create::table(&mut reader)?;
        self.declare(&Name { folded: source.name.clone(), spelled: source.name.clone(), at: source.at })?;
        if let Some(at) = self.headers(tokens) {
            return Err(at);
        }
        self.program.sources.push(source);
        Ok(())
    }

    fn view(&mut self, mut reader: Reader<'_>, tokens: &Tokens) -> Checked<()> {
        let (name, columns) = self.head(&mut reader)?;
        if let Some(option) = reader.options()?.first() {
            return Err(
                Complaint::new(option, "a view keeps nothing and has no options").help("write CREATE MATERIALIZED VIEW, or leave WITH out")
            );
        }
        let query = self.query(&mut reader, tokens)?;
        self.program.views.push(View { name: name.folded, columns, query, at: name.at });
        Ok(())
    }

    fn output(&mut self, mut reader: Reader<'_>, tokens: &Tokens) -> Checked<()> {
        let (name, columns) = self.head(&mut reader)?;
        if OURS.contains(&name.folded.as_str()) {
            return Err(
                Complaint::new(name.at, format!("every pipeline has a table {} of its own", name.folded)).help("choose another name")
            );
        }
        let options: Options = reader.options()?;
        let (lateness_us, emit, state_ttl_us) = options::output(options)?;
        let query = self.query(&mut reader, tokens)?;
        self.program.outputs.push(Output { name: name.folded, insert: None, columns, query, lateness_us, emit, state_ttl_us, at: name.at });
        Ok(())
    }

    /// `INSERT INTO sink [(columns)] SELECT …`.
    fn insert(&mut self, tokens: &Tokens) -> Checked<()> {
        let mut reader = Reader::behind(tokens, 1);
        let at = reader.here();
        if reader.takes("OVERWRITE") {
            return Err(Complaint::new(at, "INSERT OVERWRITE is not read here").help("write INSERT INTO: a sink is only added to"));
        }
        reader.expect("INTO")?;
        let sink = reader.name("the sink's name")?;
        if reader.takes(".") {
            return Err(Complaint::new(sink.at, "a sink's name has one part here").help("SET pipeline = 'name' names the pipeline"));
        }
        let columns = self.insert_columns(&mut reader)?;
        let help = "write INSERT INTO sink SELECT … FROM …";
        let here = reader.here();
        if reader.takes("VALUES") || reader.takes("DEFAULT") {
            return Err(Complaint::new(here, "an INSERT without a query has nothing to run on").help(help));
        }
        if reader.takes("BY") {
            return Err(
                Complaint::new(here, "INSERT … BY NAME is not read here").help("write the columns: INSERT INTO sink (a, b) SELECT …")
            );
        }
        let query = self.checked_query(&mut reader, tokens)?;
        let before = self.program.outputs.iter().filter_map(|output| output.insert.as_ref()).filter(|insert| insert.sink == sink.folded);
        let name = match before.count() {
            0 => sink.folded.clone(),
            before => format!("{}_{}", sink.folded, before + 1),
        };
        let insert = Some(Insert { sink: sink.folded, columns });
        self.program.outputs.push(Output {
            name,
            insert,
            columns: Vec::new(),
            query,
            lateness_us: 0,
            emit: None,
            state_ttl_us: None,
            at: sink.at,
        });
        Ok(())
    }

    /// `(a, b)` behind the sink's name; a parenthesis may also begin the query.
    fn insert_columns(&self, reader: &mut Reader<'_>) -> Checked<Vec<(String, Place)>> {
        let mut columns: Vec<(String, Place)> = Vec::new();
        let begins_query = |reader: &mut Reader<'_>| ["SELECT", "WITH", "VALUES", "TABLE", "("].iter().any(|word| reader.takes(word));
        if !reader.takes("(") {
            return Ok(columns);
        }
        if begins_query(reader) {
            (0..2).for_each(|_| reader.parser.prev_token());
            return Ok(columns);
        }
        loop {
            let column = reader.name("a column's name")?;
            if columns.iter().any(|(name, _)| *name == column.folded) {
                return Err(Complaint::new(column.at, format!("{} is named twice", column.folded)));
            }
            columns.push((column.folded, column.at));
            if reader.takes(")") {
                return Ok(columns);
            }
            if !reader.takes(",") {
                return Err(reader.unexpected(", or )"));
            }
        }
    }

    fn exists(&self, reader: &mut Reader<'_>) -> Checked<()> {
        let at = reader.here();
        if reader.takes_all(&["IF", "NOT", "EXISTS"]) {
            return Err(Complaint::new(at, "IF NOT EXISTS is not read here").help("a file declares each name once"));
        }
        Ok(())
    }

    /// A view's name and column list.
    fn head(&self, reader: &mut Reader<'_>) -> Checked<(Name, Vec<String>)> {
        self.exists(reader)?;
        let name = reader.name("the view's name")?;
        if reader.takes(".") {
            return Err(Complaint::new(name.at, "a view's name has one part here").help("SET pipeline = 'name' names the pipeline"));
        }
        self.declare(&name)?;
        let mut columns: Vec<String> = Vec::new();
        if reader.takes("(") {
            loop {
                let column = reader.name("a column's name")?;
                if columns.contains(&column.folded) {
                    return Err(Complaint::new(column.at, format!("there are two columns {}", column.folded)).help("rename one"));
                }
                columns.push(column.folded);
                if reader.takes(")") {
                    break;
                }
                if !reader.takes(",") {
                    return Err(reader.unexpected(", or )"));
                }
            }
        }
        Ok((name, columns))
    }

    /// A name is free, and can name a folder.
    fn declare(&self, name: &Name) -> Checked<()> {
        let program = &self.program;
        let names = program.sources.iter().map(|each| &each.name).chain(program.views.iter().map(|each| &each.name));
        let names = names.chain(program.sinks.iter().map(|each| &each.name));
        let tables = program.outputs.iter().filter(|each| each.insert.is_none());
        if names.chain(tables.map(|each| &each.name)).any(|other| *other == name.folded) {
            return Err(Complaint::new(name.at, format!("{} is declared twice", name.folded)).help("rename one"));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if name.folded.is_empty() || name.folded.len() > 128 || !name.folded.bytes().all(fits) {
            let message = format!("a table's name has 1 to 128 letters, digits and _; \"{}\" is none", name.folded);
            return Err(Complaint::new(name.at, message).help("choose another name"));
        }
        Ok(())
    }

    fn headers(&self, tokens: &Tokens) -> Option<Complaint> {
        let at = tokens.names("_headers")?;
        Some(Complaint::new(at, "_headers is not supported yet").help("there are _topic, _partition, _offset, _timestamp and _key"))
    }

    /// `AS SELECT …` to the end of the statement.
    fn query(&self, reader: &mut Reader<'_>, tokens: &Tokens) -> Checked<Query> {
        reader.expect("AS")?;
        self.checked_query(reader, tokens)
    }

    fn checked_query(&self, reader: &mut Reader<'_>, tokens: &Tokens) -> Checked<Query> {
        if let Some(complaint) = self.headers(tokens) {
            return Err(complaint);
        }
        let query = reader.parse(|parser| parser.parse_query())?;
        // The dialect reads a trailing name as an alias of the whole query in places; whatever is left is refused.
        reader.finish("the query")?;
        debug_assert!(query.span().start.line > 0);
        refuse::check(&query, tokens)?;
        let mut query = *query;
        approximate(&mut query);
        wrap_asof(&mut query);
        Ok(query)
    }
}

/// Every INSERT has its sink and a name of its own, and nothing that goes out comes in again.
fn check_inserts(program: &Program) -> Checked<()> {
    for sink in &program.sinks {
        let SinkConnector::Kafka { topic, brokers, .. } = &sink.connector else { continue };
        let reads = |source: &&Source| matches!(&source.options.connector, Connector::Kafka { topic: read, brokers: at, .. } if read == topic && at == brokers);
        if let Some(source) = program.sources.iter().find(reads) {
            let message = format!("{} writes to topic {topic}, which {} reads: what goes out would come in again", sink.name, source.name);
            return Err(Complaint::new(sink.at, message).help("write to another topic"));
        }
    }
    for output in &program.outputs {
        let Some(insert) = &output.insert else { continue };
        if program.sink_of(output).is_none() {
            let complaint = Complaint::new(output.at, format!("INSERT INTO {}: there is no such sink", insert.sink));
            let help =
                format!("declare it: CREATE TABLE {} (column TYPE, …) WITH (connector = 'kafka', topic = …, format = 'json')", insert.sink);
            let read = program.views.iter().any(|view| view.name == insert.sink);
            let kept = program.outputs.iter().any(|other| other.insert.is_none() && other.name == insert.sink);
            return Err(if read || kept {
                complaint.help("a view follows from its SELECT; nothing is inserted into it")
            } else {
                complaint.help(help)
            });
        }
        let names = program.sources.iter().map(|each| &each.name).chain(program.views.iter().map(|each| &each.name));
        let names = names.chain(program.sinks.iter().map(|each| &each.name).filter(|name| **name != insert.sink));
        let mut names = names.chain(program.outputs.iter().filter(|other| other.at != output.at).map(|each| &each.name));
        if names.any(|name| *name == output.name) {
            let message = format!("{} is declared, and is also what the accounting calls this INSERT INTO {}", output.name, insert.sink);
            return Err(Complaint::new(output.at, message).help(format!("rename {}", output.name)));
        }
    }
    Ok(())
}

const STATEMENTS: &str = "a pipeline has SET pipeline, CREATE TABLE, CREATE VIEW, CREATE MATERIALIZED VIEW and INSERT INTO";

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

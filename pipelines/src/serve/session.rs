//! One statement over one snapshot: parsed, checked, planned, and run within limits of memory, disk and time.
//!
//! Always: read-only, by the syntax tree and by the plan; each statement reads the newest manifests once, so all its tables stand at one
//! epoch; nothing outside the data folder can be named. A wrong statement is `refused`, one that fails while it runs is `failed`. The
//! command and the prompt call `Serve::query`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProviderList, MemoryCatalogProviderList};
use datafusion::common::DataFusionError;
use datafusion::error::Result as DfResult;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::{ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::planner::{ParserOptions, SqlToRel};
use datafusion::sql::sqlparser::dialect::{Dialect as SqlDialect, GenericDialect};
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_engine::error::{Error, Result};
use tokio::time::{Instant, timeout_at};

use super::catalog::{CATALOG, Catalog, Tables};
use super::names::Names;
use super::readonly;
use super::snapshot::Snapshot;
use super::wrong::{self, Wrong};
use crate::sql;

/// What each step of a statement comes to.
type Outcome<T> = std::result::Result<T, Wrong>;

/// Parts of the pipelines' SQL that queries share.
#[derive(Clone)]
pub struct Language {
    /// What the lexer and the parser take.
    pub dialect: Arc<dyn SqlDialect + Send + Sync>,
    /// SQL types to Arrow types.
    pub types: Arc<dyn TypePlanner>,
    /// Asked before DataFusion's own.
    pub expressions: Vec<Arc<dyn ExprPlanner>>,
    /// `tumble`, `hop`, `session` and the like.
    pub relations: Vec<Arc<dyn RelationPlanner>>,
    /// Lowers nodes of our own to plain ones.
    pub lower: fn(LogicalPlan) -> DfResult<LogicalPlan>,
    /// Adds functions.
    pub register: fn(&SessionContext),
}

impl Default for Language {
    fn default() -> Self {
        let (types, expressions, relations) = sql::planners();
        Self {
            dialect: Arc::new(GenericDialect {}),
            types,
            expressions,
            relations,
            lower: sql::to_batch,
            register: |context| crate::functions::all().iter().for_each(|function| context.register_udf(function.as_ref().clone())),
        }
    }
}

/// Makes our own joins known to the planner.
fn wrap_joins(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => sql::wrap_asof(statement.as_mut()),
        Statement::Explain(explain) => wrap_joins(&mut explain.statement),
        _ => {}
    }
}

/// Limits of a query.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// Memory for sorts, joins and groups; what does not fit is spilled.
    pub memory_bytes_max: usize,
    /// Disk for what is spilled.
    pub spill_bytes_max: u64,
    /// Where it is spilled; the system's folder for temporary files if none.
    pub spill_folder: Option<PathBuf>,
    /// A query that takes longer is ended.
    pub timeout: Option<Duration>,
    /// Threads of one query.
    pub threads: usize,
    /// What errors call the text of a statement.
    pub text_name: &'static str,
}

impl Default for QueryOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory_bytes_max: 1 << 30, spill_bytes_max: 10 << 30, spill_folder: None, timeout: None, threads, text_name: "-c" }
    }
}

/// The rows of a query.
pub struct Answer {
    /// Its columns.
    pub schema: SchemaRef,
    /// Its rows, as they are computed; dropping it ends the query.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

impl Answer {
    /// All rows; for tests and small answers.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.batches.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }
}

/// Answers queries over a data folder.
pub struct Serve {
    folder: PathBuf,
    language: Language,
    options: QueryOptions,
    runtime: Arc<RuntimeEnv>,
}

impl Serve {
    /// Over `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>, language: Language, options: QueryOptions) -> Result<Self> {
        let wrong = |error: DataFusionError| Error::failed(error.strip_backtrace());
        let pool = TrackConsumersPool::new(FairSpillPool::new(options.memory_bytes_max), std::num::NonZeroUsize::MIN);
        let mode =
            options.spill_folder.clone().map_or(DiskManagerMode::OsTmpDirectory, |folder| DiskManagerMode::Directories(vec![folder]));
        let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(options.spill_bytes_max);
        let runtime =
            RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).with_disk_manager_builder(disk).build_arc().map_err(wrong)?;
        Ok(Self { folder: folder.into(), language, options, runtime })
    }

    /// Runs a text of one statement at the newest epochs. Needs a tokio runtime with time.
    pub async fn query(&self, text: &str) -> Result<Answer> {
        self.answer(text).await.map_err(|wrong| wrong.placed(self.options.text_name, text))
    }

    async fn answer(&self, text: &str) -> Outcome<Answer> {
        let mut statements = self.parse(text)?.into_iter();
        match (statements.next(), statements.next()) {
            (Some(statement), None) => self.run(statement).await,
            (None, _) => Err(Error::refused("there is no statement").into()),
            (Some(_), Some(_)) => Err(Error::refused("one statement at a time, please").into()),
        }
    }

    /// The statements of a text, without empty ones.
    fn parse(&self, text: &str) -> Outcome<Vec<Statement>> {
        let parser = DFParserBuilder::new(text).with_dialect(self.language.dialect.as_ref()).with_recursion_limit(50).build();
        let statements = parser.and_then(|mut parser| parser.parse_statements()).map(Vec::from);
        let mut statements = statements.map_err(|error| Wrong::sql(&error))?;
        statements.iter_mut().for_each(literals);
        Ok(statements)
    }

    async fn run(&self, statement: Statement) -> Outcome<Answer> {
        readonly::check(&statement).map_err(Wrong::refused)?;
        let deadline = self.options.timeout.and_then(|limit| Some((Instant::now().checked_add(limit)?, limit)));
        match deadline {
            Some((at, limit)) => timeout_at(at, self.start(statement))
                .await
                .unwrap_or_else(|_| Err(too_long(limit).into()))
                .map(|answer| bounded(answer, at, limit)),
            None => self.start(statement).await,
        }
    }

    async fn start(&self, statement: Statement) -> Outcome<Answer> {
        let tables = Arc::new(Tables { snapshot: Snapshot::open(&self.folder)? });
        let context = self.context(&tables);
        let state = context.state();
        let plan = self.plan(&state, &tables, statement)?;
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let refused = |error: DataFusionError| Wrong::refused(Error::refused(format!("this is read-only: {}", wrong::text(&error))));
        read_only.verify_plan(&plan).map_err(refused)?;
        let plan = state.optimize(&plan).map_err(|error| Wrong::sql(&error))?;
        let physical = state.query_planner().create_physical_plan(&plan, &state).await.map_err(|error| failure(&error))?;
        let stream = execute_stream(physical, context.task_ctx()).map_err(|error| failure(&error))?;
        let (schema, name) = (stream.schema(), self.options.text_name);
        // What fails while rows come has no statement at hand; it is its data that is at fault.
        let batches = stream.map(move |batch| batch.map_err(|error| failure(&error).placed(name, ""))).boxed();
        Ok(Answer { schema, batches })
    }

    fn plan(&self, state: &SessionState, tables: &Tables, mut statement: Statement) -> Outcome<LogicalPlan> {
        wrap_joins(&mut statement);
        let names = Names { state, tables, types: Some(Arc::clone(&self.language.types)) };
        let options = ParserOptions::from(&state.config_options().sql_parser);
        let plan = SqlToRel::new_with_options(&names, options).statement_to_plan(statement).and_then(self.language.lower);
        plan.map_err(|error| Wrong::sql(&error))
    }

    fn context(&self, tables: &Arc<Tables>) -> SessionContext {
        let mut config = SessionConfig::new()
            .with_target_partitions(self.options.threads.max(1))
            .with_information_schema(true)
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, "information_schema");
        let sql = &mut config.options_mut().sql_parser;
        sql.parse_float_as_decimal = true;
        sql.enable_ident_normalization = true;
        sql.map_string_types_to_utf8view = true;
        sql.collect_spans = true;
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.to_owned(), Arc::new(Catalog(Arc::clone(tables))));
        let mut builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.runtime))
            .with_catalog_list(Arc::new(catalogs))
            .with_default_features()
            // No CREATE EXTERNAL TABLE would get this far; there is nothing it could make either.
            .with_table_factories(Default::default());
        if let Some(planners) = builder.expr_planners() {
            planners.splice(0..0, self.language.expressions.iter().cloned());
        }
        let builder =
            builder.with_relation_planners(self.language.relations.clone()).with_analyzer_rule(Arc::new(sql::Checked { sums: true }));
        let context = SessionContext::new_with_state(builder.build());
        (self.language.register)(&context);
        context
    }
}

/// Numbers mean what they mean in a pipeline.
fn literals(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => sql::approximate(statement.as_mut()),
        Statement::Explain(explain) => literals(&mut explain.statement),
        _ => {}
    }
}

fn too_long(limit: Duration) -> Error {
    Error::failed(format!(
        "the query took longer than {} s and was ended; narrow it, or use the prompt, which has no limit",
        limit.as_secs()
    ))
}

/// Ends the rows at the deadline.
fn bounded(answer: Answer, at: Instant, limit: Duration) -> Answer {
    let batches = futures::stream::unfold(Some(answer.batches), move |rows| async move {
        let mut rows = rows?;
        match timeout_at(at, rows.next()).await {
            Ok(Some(Ok(batch))) => Some((Ok(batch), Some(rows))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(too_long(limit)), None)),
        }
    });
    Answer { schema: answer.schema, batches: batches.boxed() }
}

/// An error while the statement ran.
fn failure(error: &DataFusionError) -> Wrong {
    if let Some(error) = wrong::ours(error) {
        return Wrong::Other(error);
    }
    match error.find_root() {
        DataFusionError::Plan(_) | DataFusionError::SchemaError(..) | DataFusionError::NotImplemented(_) => Wrong::sql(error),
        root if matches!(root, DataFusionError::ResourcesExhausted(_)) || root.to_string().contains("used disk space") => {
            Error::failed(format!("the query needs more memory or disk than it may have: {}", wrong::text(error))).into()
        }
        _ => Error::failed(sql::data_error(error)).into(),
    }
}

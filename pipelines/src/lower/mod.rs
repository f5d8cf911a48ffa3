//! Logical plans to a dataflow: which operator runs each part, where rows change workers, what identifies an output.
//!
//! Always: a source is read once, with the columns that some output needs; every stateful operator stands behind an exchange by its
//! key; a materialized view that reads another gets its changes, held back by that view's lateness. Ids of nodes with state are `<output>_<n>_<name>`
//! and do not depend on the number of workers, since state belongs to them. What can't be run is refused here at the latest.

mod again;
mod aggregate;
mod asof;
pub mod calls;
pub mod expr;
mod finality;
mod join;
mod keyed;
mod latest;
mod readings;
mod session;
mod settle;
mod sink;
mod stream;
mod tail;
mod top_k;
mod union;
mod unnest;
mod windowed;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, TableScan};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Dataflow, Make, NodeId, NodeKind, OutputSpec};
use tidemill_engine::hash::hash_bytes;
use tidemill_engine::operator::Operator;
use tidemill_engine::source::{SourceSpec, TimeSpec};
use tidemill_operators::expression::Expression;
use tidemill_operators::hold_back::HoldBack;
use tidemill_operators::project::Map;

use crate::sql::{
    AsofNode, Emit, Output, OutputTable, PlannedOutput, Program, SinkConnector, Source, SourceTable, WindowNode, analyze, optimize,
    rank_bound,
};
use finality::Finality;
use stream::{Span, Stream, arrow_schema};
use tail::{Tail, TailKind};

/// How a source is opened: the connectors' side of the planner.
pub trait Opener {
    /// A reader of `source` that builds the declared columns named in `columns` (in declared order), then `hidden` (in their order).
    /// `reading` tells several readers of one source apart.
    fn open(&self, source: &Source, reading: u32, columns: &[String], hidden: &[String]) -> Result<Opened>;
}

/// An opened source.
pub struct Opened {
    /// What it is called in letters and manifests.
    pub topic: String,
    /// The columns of its batches.
    pub schema: SchemaRef,
    /// Makes one worker's reader.
    pub open: Arc<dyn Fn() -> Result<Box<dyn tidemill_engine::source::Source>> + Send + Sync>,
}

/// Lowers every output of a program for `workers` workers. `reading_of` tells which reading of its sources each output belongs to; see
/// `readings`.
pub fn lower(
    program: &Program,
    planned: &[PlannedOutput],
    opener: &dyn Opener,
    workers: usize,
    reading_of: &dyn Fn(&str) -> u32,
) -> Result<Dataflow> {
    let mut plans = Vec::with_capacity(planned.len());
    for planned in planned {
        let output = program.outputs.iter().find(|output| output.name == planned.name);
        let output = output.ok_or_else(|| Error::failed(format!("no output {}", planned.name)))?;
        let keyed = keyed::keyed(&planned.analyzed).map_err(|error| placed(program, output, error))?;
        plans.push(OutputPlan { output, plan: rewritten(&keyed.plan).map_err(|error| placed(program, output, error))?, keyed });
    }
    let mut lowering = Lowering {
        program,
        plans: &plans,
        again: 0,
        flow: Dataflow::default(),
        workers,
        sources: BTreeMap::new(),
        outputs: HashMap::new(),
        finality: HashMap::new(),
        known: HashMap::new(),
        output: None,
        name: String::new(),
        stateful: 0,
    };
    for (reading, members) in readings::split(&plans, reading_of) {
        lowering.reading(reading, &members, opener)?;
    }
    Ok(lowering.flow)
}

/// An output with its plan.
struct OutputPlan<'a> {
    output: &'a Output,
    keyed: keyed::Keyed,
    plan: LogicalPlan,
}

/// A refusal that has no place of its own gets the output's.
fn placed(program: &Program, output: &Output, error: Error) -> Error {
    if error.kind() == tidemill_engine::error::Kind::Refused && !error.message().contains(": error:") {
        return Error::refused(format!(
            "{}:{}:{}: error: {}: {}",
            program.file,
            output.at.line,
            output.at.column,
            output.name,
            error.message()
        ));
    }
    error
}

fn rewritten(plan: &LogicalPlan) -> Result<LogicalPlan> {
    let wrong = |error: datafusion::error::DataFusionError| Error::refused(error.strip_backtrace());
    optimize(analyze(plan.clone()).map_err(wrong)?).map_err(wrong)
}

struct Lowering<'a> {
    program: &'a Program,
    plans: &'a [OutputPlan<'a>],
    /// How many joins deep a side is read that shares sources with the other: views that are missing there are run once more.
    again: u32,
    flow: Dataflow,
    workers: usize,
    /// Source nodes by name, with the source's index.
    sources: BTreeMap<String, (NodeId, usize)>,
    /// Finished outputs, as those that read them see them.
    outputs: HashMap<String, Stream>,
    /// When the results of each of them are final.
    finality: HashMap<String, Finality>,
    /// Stateless parts lowered before: equal plans are one node.
    known: HashMap<LogicalPlan, Stream>,
    output: Option<&'a Output>,
    /// What ids of its nodes begin with.
    name: String,
    stateful: usize,
}

impl<'a> Lowering<'a> {
    /// One node a source, reading the columns that any plan scans and the event time.
    fn add_sources(&mut self, reading: u32, plans: &[&LogicalPlan], opener: &dyn Opener) -> Result<()> {
        for source in &self.program.sources {
            let mut needed: Vec<String> = Vec::new();
            for plan in plans {
                scanned(plan, &source.name, &mut needed);
            }
            if let Some(watermark) = &source.watermark {
                needed.push(watermark.column.clone());
            }
            needed.extend(source.primary_key.iter().cloned());
            if !plans.iter().any(|plan| reads(plan, &source.name)) {
                continue;
            }
            let columns: Vec<String> =
                source.columns.iter().filter(|column| needed.contains(&column.name)).map(|column| column.name.clone()).collect();
            let hidden: Vec<String> =
                crate::sql::HIDDEN.iter().filter(|name| needed.iter().any(|each| each == *name)).map(|name| (*name).to_owned()).collect();
            let opened = opener.open(source, reading, &columns, &hidden)?;
            let time = match &source.watermark {
                Some(watermark) => {
                    let column = opened.schema.index_of(&watermark.column).map_err(|error| Error::failed(error.to_string()))?;
                    Some(TimeSpec { column, delay_us: watermark.delay_us })
                }
                None => None,
            };
            let index = self.flow.sources.len();
            self.flow.sources.push(SourceSpec {
                name: source.name.clone(),
                reading,
                letters: self.flow.sources.iter().all(|before| before.name != source.name),
                topic: opened.topic,
                schema: opened.schema,
                time,
                future_max_us: source.options.max_future_us,
                idle_after_us: source.options.idle_after_us,
                open: opened.open,
            });
            let id = if reading == 0 { format!("source/{}", source.name) } else { format!("source/{}/{reading}", source.name) };
            let node = self.flow.add(id, vec![], NodeKind::Source(index));
            self.sources.insert(source.name.clone(), (node, index));
        }
        Ok(())
    }

    /// One reading of the sources, and the outputs that belong to it.
    fn reading(&mut self, reading: u32, members: &[(&OutputPlan<'a>, bool)], opener: &dyn Opener) -> Result<()> {
        self.sources.clear();
        self.outputs.clear();
        self.finality.clear();
        self.known.clear();
        self.add_sources(reading, &members.iter().map(|(each, _)| &each.plan).collect::<Vec<_>>(), opener)?;
        for (each, written) in members {
            self.output = Some(each.output);
            self.name = if *written { each.output.name.clone() } else { format!("{}@{reading}", each.output.name) };
            self.stateful = 0;
            let lowered = self.output(each.output, &each.keyed, &each.plan, written.then_some(reading));
            lowered.map_err(|error| placed(self.program, each.output, error))?;
        }
        Ok(())
    }

    /// An output and its table; without a reading it is only for others to read.
    fn output(&mut self, output: &'a Output, keyed: &keyed::Keyed, plan: &LogicalPlan, reading: Option<u32>) -> Result<()> {
        if output.state_ttl_us.is_some() && self.emit() == Some(Emit::Final) {
            return Err(Error::refused("emit = 'final' needs windows: a key's latest run may always go on; use emit = 'changes'"));
        }
        if let (Some(sink), Some(reading)) = (self.program.sink_of(output), reading) {
            return self.deliver(output, sink, keyed, plan, reading);
        }
        let stream = self.plan(plan)?;
        let stream = self.settled(stream)?;
        let named = matches!(stream.tail, Some(Tail { kind: TailKind::Names | TailKind::Pairs { whole: true }, .. }));
        if let Some(Tail { kind: TailKind::Pairs { whole: false }, .. }) = &stream.tail
            && stream.revises
        {
            return Err(Error::refused(
                "its rows may be revised, and nothing tells them apart: select the key columns of the views that it joins too",
            ));
        }
        if keyed.key.is_empty() && stream.revises && !named {
            return Err(Error::refused("its rows may be revised, but it has no key: select the key columns (GROUP BY, PARTITION BY) too"));
        }
        if let Some(reading) = reading {
            let index = self.flow.outputs.len();
            let (node, schema, key) = self.table_of(&stream, keyed);
            self.flow.add(format!("{}/sink", output.name), vec![node], NodeKind::Sink(index));
            self.flow.outputs.push(OutputSpec {
                name: output.name.clone(),
                delivered: false,
                schema,
                key,
                visible: keyed.visible,
                plan_hash: self.plan_hash(output, plan),
                reading,
                behind_us: stream.behind_us,
            });
        }
        self.finality.insert(output.name.clone(), self.finality_of(plan, &stream));
        self.outputs.insert(output.name.clone(), stream);
        Ok(())
    }

    /// An output's rows, the columns of its table and its key. Rows without a key that may be revised are kept by their names, hidden.
    fn table_of(&mut self, stream: &Stream, keyed: &keyed::Keyed) -> (NodeId, SchemaRef, Vec<usize>) {
        let Some(tail) = &stream.tail else { return (stream.node, Arc::clone(&stream.schema), keyed.key.clone()) };
        if !keyed.key.is_empty() || !stream.revises {
            let node = self.project(stream.node, Vec::new(), all_columns(&stream.schema), &stream.schema, "rows");
            return (node, Arc::clone(&stream.schema), keyed.key.clone());
        }
        let width = stream.schema.fields().len();
        let mut fields: Vec<Field> = stream.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        fields.extend(tail.fields.iter().enumerate().map(|(index, field)| field.clone().with_name(format!("_key_{index}"))));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let columns = all_columns(&schema);
        let node = self.project(stream.node, Vec::new(), columns, &schema, "named");
        (node, schema, (width..width + tail.fields.len()).collect())
    }

    /// What makes two versions of an output the same: its plan, its options and what its sources decode; not comments or layout.
    fn plan_hash(&self, output: &Output, plan: &LogicalPlan) -> String {
        let mut text = format!("{}\n{} {:?} {:?}\n", plan.display_indent_schema(), output.lateness_us, output.emit, output.state_ttl_us);
        for source in &self.program.sources {
            if reads(plan, &source.name) {
                let columns: Vec<_> =
                    source.columns.iter().map(|column| (&column.name, &column.spelled, &column.data_type, column.nullable)).collect();
                text.push_str(&format!(
                    "{} {columns:?} {:?} {:?} {:?}\n",
                    source.name, source.watermark, source.options.format, source.options.max_future_us
                ));
                if !source.primary_key.is_empty() {
                    text.push_str(&format!("{:?} {:?}\n", source.primary_key, source.options.key_format));
                }
            }
        }
        if let Some(sink) = self.program.sink_of(output) {
            let columns: Vec<_> = sink.columns.iter().map(|column| (&column.name, &column.spelled, &column.data_type)).collect();
            let place = match &sink.connector {
                SinkConnector::Kafka { topic, key_as_json, .. } => format!("kafka {topic} {key_as_json}"),
                other => format!("{other:?}"),
            };
            text.push_str(&format!("{} {columns:?} {:?} {place}\n", sink.name, sink.primary_key));
        }
        format!("{:016x}", hash_bytes(text.as_bytes(), 0))
    }

    fn plan(&mut self, plan: &LogicalPlan) -> Result<Stream> {
        if let Some(known) = self.known.get(plan) {
            return Ok(known.clone());
        }
        let stream = match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan)?,
            LogicalPlan::SubqueryAlias(alias) => {
                let stream = self.plan(&alias.input)?;
                Stream { schema: arrow_schema(plan), ..stream }
            }
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) => match plan {
                LogicalPlan::Filter(filter) if rank_bound(filter).is_some() && self.latest_run() => self.latest(filter)?,
                LogicalPlan::Filter(filter) if rank_bound(filter).is_some() => self.top_k(filter)?,
                _ => self.map(plan)?,
            },
            LogicalPlan::Union(union) => self.union(union, plan)?,
            LogicalPlan::Join(join) => self.join(join, plan)?,
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate)?,
            LogicalPlan::Unnest(unnest) => self.unnest(unnest, plan)?,
            LogicalPlan::Extension(extension) => match WindowNode::of(extension) {
                Some(node) => self.assign_windows(node)?,
                None => match AsofNode::of(extension) {
                    Some(node) => self.asof(node)?,
                    None => return Err(Error::refused(format!("{} can't run as a stream", extension.node.name()))),
                },
            },
            LogicalPlan::Window(_) => return Err(Error::refused("ROW_NUMBER() must be bounded right above: WHERE number <= k")),
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                return Err(Error::refused("it reads no source, or only where a condition holds that is never true"));
            }
            other => return Err(Error::refused(format!("{} can't run as a stream", other.display()))),
        };
        // State belongs to one output; only what keeps none can be shared.
        if stream.raw && !matches!(plan, LogicalPlan::Union(_)) {
            self.known.insert(plan.clone(), stream.clone());
        }
        Ok(stream)
    }

    fn scan(&mut self, scan: &TableScan) -> Result<Stream> {
        let schema = Arc::new(scan.projected_schema.as_arrow().clone());
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return Err(Error::failed("a scan was planned with filters of its own"));
        }
        if let Some(table) = scan.source.downcast_ref::<SourceTable>() {
            if table.is_changelog() {
                return self.scan_changes(scan, table, schema);
            }
            let (node, source) = *self.sources.get(&table.name).ok_or_else(|| Error::failed(format!("no source {}", table.name)))?;
            let from = Arc::clone(&self.flow.sources[source].schema);
            let columns = named_columns(&schema, &from)?;
            let node = self.project(node, Vec::new(), columns, &schema, "columns");
            return Ok(Stream { node, schema, revises: false, raw: true, sources: vec![source], span: None, behind_us: 0, tail: None });
        }
        let Some(table) = scan.source.downcast_ref::<OutputTable>() else {
            return Err(Error::refused(format!("{} is no source, view or output of this file", scan.table_name)));
        };
        let read = match self.outputs.get(&table.name) {
            Some(read) => read.clone(),
            None => self.run_again(&table.name)?,
        };
        if self.program.outputs.iter().any(|output| output.name == table.name && output.state_ttl_us.is_some()) {
            return Err(Error::refused(format!(
                "{} has state_ttl: what it replaces is no longer held, so nothing can be computed from its changes; query its table instead",
                table.name
            )));
        }
        let full: Vec<Option<usize>> = schema.fields().iter().map(|field| read.schema.index_of(field.name()).ok()).collect();
        let columns = named_columns(&schema, &read.schema)?;
        let bound = read.behind_us;
        let held =
            self.add_operator(vec![read.node], "hold_back", Arc::new(move || Ok(Box::new(HoldBack::new(bound)) as Box<dyn Operator>)));
        let node = self.mapped(&Stream { node: held, ..read.clone() }, Vec::new(), columns, &schema, "columns");
        Ok(Stream { node, schema, raw: false, span: read.span.and_then(|span| span.through(&full)), ..read })
    }

    /// Filters and projections in one pass: every filter below a projection, down to something else.
    fn map(&mut self, plan: &LogicalPlan) -> Result<Stream> {
        let (exprs, mut below) = match plan {
            LogicalPlan::Projection(projection) => (Some(&projection.expr), projection.input.as_ref()),
            other => (None, other),
        };
        let mut predicates: Vec<&Expr> = Vec::new();
        while let LogicalPlan::Filter(filter) = below {
            if rank_bound(filter).is_some() {
                break;
            }
            let mut all = split_conjunction(&filter.predicate);
            all.extend(predicates);
            predicates = all;
            below = filter.input.as_ref();
        }
        let input = self.plan(below)?;
        let over = below.schema();
        let filters = predicates.into_iter().map(|predicate| expr::compile(predicate, over)).collect::<Result<Vec<_>>>()?;
        let schema = arrow_schema(plan);
        let columns = match exprs {
            Some(exprs) => exprs.iter().map(|each| expr::compile(each, over)).collect::<Result<Vec<_>>>()?,
            None => all_columns(&schema),
        };
        let from: Vec<Option<usize>> = match exprs {
            Some(exprs) => exprs.iter().map(|each| plain_column(each, over)).collect(),
            None => (0..schema.fields().len()).map(Some).collect(),
        };
        let node = self.mapped(&input, filters, columns, &schema, "map");
        Ok(Stream { node, schema, span: input.span.and_then(|span| span.through(&from)), ..input })
    }

    fn project(
        &mut self,
        input: NodeId,
        filters: Vec<Arc<dyn Expression>>,
        columns: Vec<Arc<dyn Expression>>,
        schema: &SchemaRef,
        name: &str,
    ) -> NodeId {
        let schema = nullable(schema);
        let make: Make =
            Arc::new(move || Ok(Box::new(Map::new(filters.clone(), columns.clone(), Arc::clone(&schema))) as Box<dyn Operator>));
        self.add_operator(vec![input], name, make)
    }

    /// An operator without state.
    fn add_operator(&mut self, inputs: Vec<NodeId>, name: &str, make: Make) -> NodeId {
        let id = format!("{}/-{}_{name}", self.name, self.flow.nodes.len());
        self.flow.add(id, inputs, NodeKind::Operator(make))
    }

    /// An operator with state: its id must not depend on how many workers there are.
    fn add_stateful(&mut self, input: NodeId, name: &str, make: Make) -> NodeId {
        self.stateful += 1;
        let id = format!("{}_{}_{name}", self.name, self.stateful);
        self.flow.add(id, vec![input], NodeKind::Operator(make))
    }

    fn exchange(&mut self, input: NodeId, keys: Vec<usize>) -> NodeId {
        let id = format!("{}/-{}_exchange", self.name, self.flow.nodes.len());
        self.flow.add(id, vec![input], NodeKind::Exchange(keys))
    }

    fn lateness_us(&self) -> i64 {
        self.output.map_or(0, |output| output.lateness_us)
    }

    fn emit(&self) -> Option<Emit> {
        self.output.and_then(|output| output.emit)
    }
}

/// Rows in flight are nullable: a projection's declared nullability is DataFusion's promise, not ours to enforce row by row.
fn nullable(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}

fn all_columns(schema: &SchemaRef) -> Vec<Arc<dyn Expression>> {
    schema.fields().iter().enumerate().map(|(index, field)| expr::column(index, field.data_type().clone(), field.name())).collect()
}

fn named_columns(wanted: &SchemaRef, from: &SchemaRef) -> Result<Vec<Arc<dyn Expression>>> {
    let place = |field: &Field| from.index_of(field.name()).map_err(|error| Error::failed(error.to_string()));
    wanted.fields().iter().map(|field| Ok(expr::column(place(field)?, field.data_type().clone(), field.name()))).collect()
}

/// The input column that an expression passes on as it is.
fn plain_column(expr: &Expr, schema: &DFSchema) -> Option<usize> {
    match expr {
        Expr::Column(column) => schema.index_of_column(column).ok(),
        Expr::Alias(alias) => plain_column(&alias.expr, schema),
        _ => None,
    }
}

/// Names of the columns that a plan scans of a source.
fn scanned(plan: &LogicalPlan, source: &str, into: &mut Vec<String>) {
    if let LogicalPlan::TableScan(scan) = plan
        && scan.source.downcast_ref::<SourceTable>().is_some_and(|table| table.name == source)
    {
        into.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
    }
    plan.inputs().into_iter().for_each(|input| scanned(input, source, into));
}

fn reads(plan: &LogicalPlan, source: &str) -> bool {
    if let LogicalPlan::TableScan(scan) = plan {
        return scan.source.downcast_ref::<SourceTable>().is_some_and(|table| table.name == source);
    }
    plan.inputs().into_iter().any(|input| reads(input, source))
}

/// The windows of a stream whose last two columns are them.
fn trailing_span(kind: stream::SpanKind, width: usize) -> Span {
    Span { kind, start: width.checked_sub(2), end: width.checked_sub(1) }
}

//! INSERT INTO a sink: what a keyed sink gets as it is published, a keyless one is given once it is final.
//!
//! Always: rows that reach a sink have exactly its declared columns, in their order; a NULL where the declaration says NOT NULL, or a
//! time finer than its TIMESTAMP(p), fails like any expression: a dead letter where one record is at fault, else the run stops and
//! says where. A sink without PRIMARY KEY never gets a row that may be revised later (`finality` says when none can).

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::logical_expr::LogicalPlan;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Make, NodeId, NodeKind, OutputSpec};
use tidemill_engine::operator::Operator;
use tidemill_operators::expression::Expression;
use tidemill_operators::until_final::{Holding, UntilFinal};

use super::expr::{Shifted, column};
use super::keyed::Keyed;
use super::stream::{SpanKind, Stream};
use super::{Lowering, all_columns, nullable};
use crate::sql::{Output, Sink, SinkConnector, SourceColumn, TIMESTAMP};

impl Lowering<'_> {
    /// An INSERT's rows, up to the sink.
    pub(super) fn deliver(&mut self, output: &Output, sink: &Sink, keyed: &Keyed, plan: &LogicalPlan, reading: u32) -> Result<()> {
        let stream = self.plan(plan)?;
        let as_published = !sink.primary_key.is_empty() || sink.connector == SinkConnector::Blackhole;
        let node = if !stream.revises || as_published { stream.node } else { self.hold(&stream, keyed, plan)? };
        let declared = sink.columns.iter().enumerate();
        let columns = declared.clone().map(|(index, declared)| checked(index, declared)).collect();
        let fields: Vec<Field> = sink.columns.iter().map(|column| Field::new(&column.name, column.data_type.clone(), true)).collect();
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let node = self.project(node, Vec::new(), columns, &schema, "deliver");
        let key = declared.filter(|(_, column)| sink.primary_key.contains(&column.name)).map(|(index, _)| index);
        let index = self.flow.outputs.len();
        self.flow.add(format!("{}/sink", output.name), vec![node], NodeKind::Sink(index));
        self.flow.outputs.push(OutputSpec {
            name: output.name.clone(),
            delivered: true,
            schema,
            key: key.collect(),
            visible: sink.columns.len(),
            plan_hash: self.plan_hash(output, plan),
            reading,
            behind_us: 0,
        });
        Ok(())
    }

    /// Holds results back until nothing can revise them.
    fn hold(&mut self, stream: &Stream, keyed: &Keyed, plan: &LogicalPlan) -> Result<NodeId> {
        let delay_us = self.final_after(plan)?;
        if keyed.key.is_empty() {
            return Err(Error::refused("its results may be revised, but nothing tells them apart: select the key columns (GROUP BY) too"));
        }
        let mut fields: Vec<Field> = nullable(&stream.schema).fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut columns = all_columns(&stream.schema);
        let window_end = match stream.span.map(|span| (span.end, span.start, span.kind)) {
            Some((Some(end), _, _)) => end,
            Some((None, Some(start), SpanKind::Fixed { size_us, .. })) => {
                fields.push(Field::new("__window_end", TIMESTAMP, true));
                columns.push(Arc::new(Shifted { column: start, by_us: size_us }));
                columns.len() - 1
            }
            _ => return Err(Error::refused("it gets results once they are final, which their window_end tells: GROUP BY window_end too")),
        };
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let prepared = self.project(stream.node, Vec::new(), columns, &schema, "held");
        // Of a session neither bound stands before it is over; what grows meets what it was by the other columns.
        let session = stream.span.filter(|span| span.kind == SpanKind::Session).map(|span| {
            let bound = |column: &usize| [span.start, span.end].contains(&Some(*column));
            keyed.key.iter().copied().filter(|column| !bound(column)).collect::<Vec<usize>>()
        });
        let exchanged = self.exchange(prepared, session.clone().unwrap_or_else(|| keyed.key.clone()));
        let sources = stream.sources.clone();
        let holding = Holding { key: keyed.key.clone(), window_end, delay_us, session, input: schema, sources };
        let make: Make = Arc::new(move || Ok(Box::new(UntilFinal::new(holding.clone())?) as Box<dyn Operator>));
        Ok(self.add_stateful(exchanged, "until_final", make))
    }
}

/// A column as it leaves, checked against its declaration.
fn checked(index: usize, declared: &SourceColumn) -> Arc<dyn Expression> {
    let plain = column(index, declared.data_type.clone(), &declared.name);
    let step_us = match declared.timestamp_precision {
        Some(digits @ 0..=5) => Some((10_i64.pow(6 - u32::from(digits)), digits)),
        _ => None,
    };
    if declared.nullable && step_us.is_none() {
        return plain;
    }
    let text = format!("{} at {}:{}", declared.name, declared.at.line, declared.at.column);
    Arc::new(Declared { plain, name: declared.name.clone(), required: !declared.nullable, step_us, text })
}

/// See `checked`.
struct Declared {
    plain: Arc<dyn Expression>,
    name: String,
    required: bool,
    /// Times are multiples of so many microseconds, and have so many digits after the second.
    step_us: Option<(i64, u8)>,
    text: String,
}

impl Expression for Declared {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let values = self.plain.evaluate(batch)?;
        if self.required && values.null_count() > 0 {
            let advice = format!("declare it without NOT NULL, or write coalesce({}, …)", self.name);
            return Err(Error::failed(format!("a NULL for the sink's column {}, which is NOT NULL: {advice}", self.name)));
        }
        if let (Some((step_us, digits)), Some(times)) = (self.step_us, values.as_primitive_opt::<TimestampMicrosecondType>())
            && times.iter().flatten().any(|time| time.rem_euclid(step_us) != 0)
        {
            let advice = format!("declare TIMESTAMP(6), or cut it with date_trunc in the SELECT: {}", self.name);
            return Err(Error::failed(format!("a time with more digits than TIMESTAMP({digits}) has: {advice}")));
        }
        Ok(values)
    }

    fn text(&self) -> &str {
        &self.text
    }
}

//! What a stream's batches carry behind the columns that its plan knows, and how changes become rows.
//!
//! Always: the tail goes through projections and filters unseen; whoever keeps rows takes it off. A changelog is carried as changes (key,
//! mark, time) as long as only expressions read it, so that each meets a record once; `settled` puts the operator there that applies them.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::TableScan;
use tidemill_connectors::tombstone::DELETED_COLUMN;
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Make, NodeId};
use tidemill_engine::operator::Operator;
use tidemill_operators::changelog::{ChangePlan, Latest, LiveMap};
use tidemill_operators::expression::Expression;
use tidemill_operators::project::{Map, Names};

use super::expr::column;
use super::stream::Stream;
use super::{Lowering, all_columns, named_columns, nullable};
use crate::sql::{Emit, SourceTable, TIMESTAMP};

/// Columns behind those of a stream's schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Tail {
    /// What they are.
    pub kind: TailKind,
    /// Their fields.
    pub fields: Vec<Field>,
}

/// What a tail says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailKind {
    /// The rows are changes: their key, whether they delete, and their event time if there is one.
    Changes {
        /// Key columns.
        keys: usize,
        /// The event time stands last.
        timed: bool,
    },
    /// What names each row, of a result that has no key of its own: source, partition and offset of the record it is of.
    Names,
    /// What names each row of a join, of which no single record is at fault.
    Pairs {
        /// No two rows are named alike.
        whole: bool,
    },
}

impl Tail {
    /// `schema` and the tail.
    pub fn behind(&self, schema: &SchemaRef) -> SchemaRef {
        let fields = schema.fields().iter().map(|field| field.as_ref().clone()).chain(self.fields.iter().cloned());
        nullable(&Arc::new(Schema::new(fields.collect::<Vec<_>>())))
    }

    /// The tail's columns where it stands behind `width` others.
    pub fn columns(&self, width: usize) -> impl Iterator<Item = Arc<dyn Expression>> {
        self.fields.iter().enumerate().map(move |(index, field)| column(width + index, field.data_type().clone(), field.name()))
    }
}

impl Lowering<'_> {
    /// A changelog's changes: the columns of the scan, and behind them what makes them changes.
    pub(super) fn scan_changes(&mut self, scan: &TableScan, table: &SourceTable, schema: SchemaRef) -> Result<Stream> {
        let (node, source) = *self.sources.get(&table.name).ok_or_else(|| Error::failed(format!("no source {}", table.name)))?;
        let spec = &self.flow.sources[source];
        let (from, time) = (Arc::clone(&spec.schema), spec.time);
        let all = scan.source.schema();
        let mut columns = named_columns(&schema, &from)?;
        let mut fields: Vec<Field> = Vec::new();
        let place = |name: &str| from.index_of(name).map_err(|error| Error::failed(error.to_string()));
        for index in &table.key {
            let field = all.field(*index);
            columns.push(column(place(field.name())?, field.data_type().clone(), field.name()));
            fields.push(Field::new(format!("__key_{}", field.name()), field.data_type().clone(), true));
        }
        columns.push(column(place(DELETED_COLUMN)?, DataType::Boolean, DELETED_COLUMN));
        fields.push(Field::new(DELETED_COLUMN, DataType::Boolean, true));
        if let Some(time) = time {
            columns.push(column(time.column, TIMESTAMP, "__time"));
            fields.push(Field::new("__time", TIMESTAMP, true));
        }
        let tail = Tail { kind: TailKind::Changes { keys: table.key.len(), timed: time.is_some() }, fields };
        let node = self.project(node, Vec::new(), columns, &tail.behind(&schema), "columns");
        Ok(Stream { node, schema, revises: true, raw: true, sources: vec![source], span: None, behind_us: 0, tail: Some(tail) })
    }

    /// Filters and columns over a stream, whose tail is passed on.
    pub(super) fn mapped(
        &mut self,
        input: &Stream,
        filters: Vec<Arc<dyn Expression>>,
        mut columns: Vec<Arc<dyn Expression>>,
        schema: &SchemaRef,
        name: &str,
    ) -> NodeId {
        let own = input.schema.fields().len();
        match &input.tail {
            None => self.project(input.node, filters, columns, schema, name),
            Some(tail @ Tail { kind: TailKind::Names, .. }) => {
                columns.extend(tail.columns(own));
                self.project_named(input, filters, columns, &tail.behind(schema), name)
            }
            Some(tail @ Tail { kind: TailKind::Pairs { .. }, .. }) => {
                columns.extend(tail.columns(own));
                self.project(input.node, filters, columns, &tail.behind(schema), name)
            }
            Some(tail @ Tail { kind: TailKind::Changes { keys, .. }, .. }) => {
                let (deleted, schema) = (own + keys, tail.behind(schema));
                let make: Make = Arc::new(move || {
                    let map = LiveMap::new(filters.clone(), columns.clone(), own, deleted, Arc::clone(&schema));
                    Ok(Box::new(map) as Box<dyn Operator>)
                });
                self.add_operator(vec![input.node], name, make)
            }
        }
    }

    /// What an operator keeps of a stream: `columns` of its rows, changes applied, without the tail.
    pub(super) fn kept(&mut self, input: &Stream, columns: Vec<Arc<dyn Expression>>, schema: &SchemaRef, name: &str) -> Result<NodeId> {
        match &input.tail {
            Some(Tail { kind: TailKind::Changes { .. }, .. }) => {
                let node = self.mapped(input, Vec::new(), columns, schema, name);
                Ok(self.settled(Stream { node, schema: Arc::clone(schema), ..input.clone() })?.node)
            }
            Some(Tail { kind: TailKind::Names, .. }) => Ok(self.project_named(input, Vec::new(), columns, schema, name)),
            Some(Tail { kind: TailKind::Pairs { .. }, .. }) | None => Ok(self.project(input.node, Vec::new(), columns, schema, name)),
        }
    }

    /// A stream of rows without a tail.
    pub(super) fn rows_of(&mut self, stream: Stream) -> Result<Stream> {
        let stream = self.settled(stream)?;
        let node = match &stream.tail {
            Some(_) => self.project(stream.node, Vec::new(), all_columns(&stream.schema), &stream.schema, "rows"),
            None => stream.node,
        };
        Ok(Stream { node, tail: None, ..stream })
    }

    /// A projection of rows that carry the place of their record.
    fn project_named(
        &mut self,
        input: &Stream,
        filters: Vec<Arc<dyn Expression>>,
        columns: Vec<Arc<dyn Expression>>,
        schema: &SchemaRef,
        name: &str,
    ) -> NodeId {
        let sources = input.sources.iter().map(|source| (*source, self.flow.sources[*source].name.clone())).collect();
        let names = Names { at: input.schema.fields().len(), sources };
        let schema = nullable(schema);
        let make: Make = Arc::new(move || {
            let map = Map::new(filters.clone(), columns.clone(), Arc::clone(&schema)).with_names(Some(names.clone()));
            Ok(Box::new(map) as Box<dyn Operator>)
        });
        self.add_operator(vec![input.node], name, make)
    }

    /// A stream of rows: changes are applied, each key's latest is a row. Without changes the same stream.
    pub(super) fn settled(&mut self, stream: Stream) -> Result<Stream> {
        let Some(tail @ Tail { kind: TailKind::Changes { keys, timed }, .. }) = &stream.tail else { return Ok(stream) };
        if self.emit() == Some(Emit::Final) {
            return Err(Error::refused("emit = 'final' needs windows: a row of a changelog is never final; use emit = 'changes'"));
        }
        let width = stream.schema.fields().len();
        let source = *stream.sources.first().ok_or_else(|| Error::failed("a changelog without its source"))?;
        let plan = ChangePlan { width, keys: *keys, timed: *timed, input: tail.behind(&stream.schema), source };
        let exchanged = self.exchange(stream.node, (width..width + keys).collect());
        let make: Make = Arc::new(move || Ok(Box::new(Latest::new(plan.clone())?) as Box<dyn Operator>));
        let node = self.add_stateful(exchanged, "latest", make);
        Ok(Stream { node, raw: false, revises: true, tail: None, ..stream })
    }
}

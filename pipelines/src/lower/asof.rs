//! ASOF JOIN: rows and versions to workers by key, each side's watermark held back by the lateness, and the operator that joins them.
//!
//! The left side is source rows, or the result of another as-of join. The right side is source rows or the changes of a changelog, which are
//! versions as they are: nothing applies them. Rows of the result are named by the left side's place in the log, which their batches carry
//! as a tail.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::{Make, NodeId, NodeKind};
use tidemill_engine::operator::Operator;
use tidemill_operators::asof::{Asof, AsofPlan, name_fields};
use tidemill_operators::expression::Expression;
use tidemill_operators::hold_back::HoldBack;

use super::aggregate::data_type;
use super::expr::{column, compile};
use super::stream::{Stream, arrow_schema, together};
use super::tail::{Tail, TailKind};
use super::{Lowering, all_columns, nullable, plain_column};
use crate::sql::{AsofNode, TIMESTAMP, key_of};

impl Lowering<'_> {
    pub(super) fn asof(&mut self, node: &AsofNode) -> Result<Stream> {
        let [left, right] = self.both_sides(&node.left, &node.right)?;
        let named = matches!(left.tail, Some(Tail { kind: TailKind::Names, .. }));
        if !named && (!left.raw || left.revises || left.span.is_some()) {
            return Err(Error::refused("the left side of an ASOF JOIN must be a source's rows, or those of another ASOF JOIN"));
        }
        let changes = matches!(right.tail, Some(Tail { kind: TailKind::Changes { .. }, .. }));
        if !changes && (!right.raw || right.revises || right.span.is_some()) {
            return Err(Error::refused("the right side of an ASOF JOIN must be a source's rows, or a changelog"));
        }
        let keys = node.on.len();
        let (mut left_node, left_schema) = self.asof_rows(node, &left)?;
        let (mut right_node, right_schema) = self.asof_versions(node, &right)?;
        let lateness_us = self.lateness_us();
        let sources = together(&left.sources, &right.sources);
        let name = |source: &usize| (*source, self.flow.sources[*source].name.clone());
        let plan = AsofPlan {
            left_width: left.schema.fields().len(),
            right_width: right.schema.fields().len(),
            left: left_schema,
            right: right_schema,
            keys,
            left_derived: named,
            deletions: changes,
            strict: node.strict,
            lateness_us,
            source_names: sources.iter().map(name).collect(),
            sources: sources.clone(),
        };
        let at = |width: usize| (width..width + keys).collect::<Vec<usize>>();
        left_node = self.exchange(left_node, at(plan.left_width));
        right_node = self.exchange(right_node, at(plan.right_width));
        if !named {
            left_node = self.held_back(left_node, lateness_us);
        }
        right_node = self.held_back(right_node, lateness_us);
        self.stateful += 1;
        let id = format!("{}_{}_asof", self.name, self.stateful);
        let make: Make = Arc::new(move || Ok(Box::new(Asof::new(plan.clone())?) as Box<dyn Operator>));
        let joined = self.flow.add(id, vec![left_node, right_node], NodeKind::Operator(make));
        let schema = arrow_schema(&LogicalPlan::Extension(Extension { node: Arc::new(node.clone()) }));
        let tail = Some(Tail { kind: TailKind::Names, fields: name_fields().to_vec() });
        Ok(Stream { node: joined, schema, revises: true, raw: false, sources, span: None, behind_us: 0, tail })
    }

    pub(super) fn held_back(&mut self, node: NodeId, lateness_us: i64) -> NodeId {
        if lateness_us == 0 {
            return node;
        }
        let make: Make = Arc::new(move || Ok(Box::new(HoldBack::new(lateness_us)) as Box<dyn Operator>));
        self.add_operator(vec![node], "hold_back", make)
    }

    /// The left side: its columns, join keys, time, and its names if it has some.
    fn asof_rows(&mut self, node: &AsofNode, left: &Stream) -> Result<(NodeId, SchemaRef)> {
        let over = node.left.schema();
        let mut columns = all_columns(&left.schema);
        let mut fields: Vec<Field> = left.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        for (number, (key, _)) in node.on.iter().enumerate() {
            fields.push(Field::new(format!("__join_{number}"), data_type(key, over)?, true));
            columns.push(compile(key, over)?);
        }
        fields.push(Field::new("__time", TIMESTAMP, true));
        columns.push(compile(&Expr::Column(node.left_time.clone()), over)?);
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let prepared = self.mapped(left, Vec::new(), columns, &schema, "rows");
        Ok((prepared, left.tail.as_ref().map_or_else(|| nullable(&schema), |tail| tail.behind(&schema))))
    }

    /// The right side: its columns, join keys, what a deletion is marked by if there are some, time.
    fn asof_versions(&mut self, node: &AsofNode, right: &Stream) -> Result<(NodeId, SchemaRef)> {
        let over = node.right.schema();
        let width = right.schema.fields().len();
        let mut columns = all_columns(&right.schema);
        let mut fields: Vec<Field> = right.schema.fields().iter().map(|field| field.as_ref().clone()).collect();
        let tail = right.tail.as_ref().map(|tail| (tail, tail.kind));
        for (number, (_, key)) in node.on.iter().enumerate() {
            let to = data_type(key, over)?;
            fields.push(Field::new(format!("__join_{number}"), to.clone(), true));
            columns.push(match tail {
                // A deletion has no columns but its key.
                Some((tail, TailKind::Changes { .. })) => changed_key(node, key, &tail.fields, width, to)?,
                _ => compile(key, over)?,
            });
        }
        match tail {
            Some((_, TailKind::Changes { keys, timed: true })) => {
                fields.push(Field::new("__deleted", DataType::Boolean, true));
                columns.push(column(width + keys, DataType::Boolean, "__deleted"));
                fields.push(Field::new("__time", TIMESTAMP, true));
                columns.push(column(width + keys + 1, TIMESTAMP, "__time"));
            }
            Some(_) => {
                return Err(Error::refused("the changelog on the right side of an ASOF JOIN has no time: declare WATERMARK FOR ts AS ts"));
            }
            None => {
                fields.push(Field::new("__time", TIMESTAMP, true));
                columns.push(compile(&Expr::Column(node.right_time.clone()), over)?);
            }
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        Ok((self.project(right.node, Vec::new(), columns, &schema, "versions"), nullable(&schema)))
    }
}

/// A join key of a changelog, taken from the key that each change carries.
fn changed_key(node: &AsofNode, key: &Expr, carried: &[Field], width: usize, to: DataType) -> Result<Arc<dyn Expression>> {
    let bare = match key {
        Expr::Cast(cast) => cast.expr.as_ref(),
        other => other,
    };
    let index = plain_column(bare, node.right.schema());
    let of_key = key_of(&node.right).unwrap_or_default();
    let at = of_key.iter().position(|each| index.is_some() && each.output == index);
    let at = at.ok_or_else(|| Error::refused(format!("{key} is no column of the changelog's key")))?;
    let field = carried.get(at).ok_or_else(|| Error::failed("a change without its key"))?;
    Ok(column(width + at, to, field.name()))
}

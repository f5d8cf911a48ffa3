//! `SELECT unnest(list)`: a stateless operator that copies a row for each element.

use std::sync::Arc;

use datafusion::logical_expr::{LogicalPlan, Unnest};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::graph::Make;
use tidemill_engine::operator::Operator;
use tidemill_operators::unnest::{From, Unnest as Unnesting};

use super::stream::{Stream, arrow_schema};
use super::{Lowering, nullable};

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, unnest: &Unnest, plan: &LogicalPlan) -> Result<Stream> {
        if !unnest.struct_type_columns.is_empty() || unnest.list_type_columns.iter().any(|(_, list)| list.depth != 1) {
            return Err(Error::refused("unnest takes one list apart; of a struct name its fields, of a list of lists unnest twice"));
        }
        let input = self.plan(&unnest.input)?;
        let input = self.rows_of(input)?;
        let is_list = |index: &usize| unnest.list_type_columns.iter().any(|(list, _)| list == index);
        let of = |index: &usize| if is_list(index) { From::Elements(*index) } else { From::Column(*index) };
        let from: Vec<From> = unnest.dependency_indices.iter().map(of).collect();
        let passed: Vec<Option<usize>> = from.iter().map(|from| if let From::Column(index) = from { Some(*index) } else { None }).collect();
        let (schema, keeps_null) = (arrow_schema(plan), unnest.options.preserve_nulls());
        let flat = nullable(&schema);
        let make: Make = Arc::new(move || Ok(Box::new(Unnesting::new(from.clone(), keeps_null, Arc::clone(&flat))) as Box<dyn Operator>));
        let node = self.add_operator(vec![input.node], "unnest", make);
        Ok(Stream { node, schema, span: input.span.and_then(|span| span.through(&passed)), ..input })
    }
}

//! What was set aside, judged again: late events by each record's own partition and offset, dead letters by decoding, and failing expressions by
//! evaluating them.
//!
//! Always: both directions. A row may be judged by more than its partition's own watermark only where the partition had been idle: then by no more
//! than the floor that the epoch remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast as cast_array;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::datasource::MemTable;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableScan, cast, col, ident, lit};
use tidemill_engine::epoch::system::{DEAD_LETTERS, LATE_EVENTS};
use tidemill_engine::error::{Error, Result};

use super::batch::{OutputWorld, stream};
use super::compare::failed;
use super::lowering::{self, Reads, Rules, World};
use super::report::{Check, Report};
use super::spool::{Aside, SpoolTable};
use super::{OFFSET, PARTITION, SOURCE, Verifier, WATERMARK, log, nothing};
use crate::serve::output_table;
use crate::sql::{OutputTable, SourceTable, WINDOW_START};

/// Failing records of one output that are evaluated again.
const EVALUATED_MAX: usize = 100;

impl Verifier<'_> {
    async fn collect(&self, rows: DataFrame) -> Result<Vec<RecordBatch>> {
        rows.collect().await.map_err(|error| failed(&error))
    }

    fn set_aside(&self, folder: &str) -> Result<DataFrame> {
        self.context.read_table(output_table(self.batch.store, self.batch.table(folder)?)).map_err(|error| failed(&error))
    }

    /// The sources of an output, in its reading, by number and name.
    fn sources(&self, reading: u32) -> Vec<(usize, String)> {
        let all = self.batch.pipeline.program.sources.iter().enumerate();
        all.filter(|(_, source)| self.batch.logs.contains_key(&(source.name.clone(), reading)))
            .map(|(index, source)| (index, source.name.clone()))
            .collect()
    }

    /// What the output does not count: records on which it failed, and floors.
    pub(super) async fn world(&self, output: &str, report: &mut Report) -> Result<OutputWorld<'_>> {
        let reading = self.batch.reading(output);
        let mut world = OutputWorld { batch: self.batch, reading, aside: BTreeMap::new() };
        for (_, source) in self.sources(reading) {
            let wrong = |error: datafusion::common::DataFusionError| failed(&error);
            let mine = ident("output").eq(lit(output)).and(ident("source").eq(lit(&source)));
            let dead = self.set_aside(DEAD_LETTERS)?.filter(mine.clone()).map_err(wrong)?;
            let dead = dead.select(vec![int("partition"), int("offset")]).map_err(wrong)?;
            let dead: BTreeSet<(i64, i64)> =
                numbers::<2>(&self.collect(dead).await?)?.into_iter().map(|[partition, offset]| (partition, offset)).collect();
            let floors = self.floors(output, &source, reading, report).await?;
            let checked = self.expressions(output, &world, &source, &dead).await?;
            report.checks.extend(checked);
            world.aside.insert(source, Arc::new(Aside { dead, floors, inverted: false }));
        }
        Ok(world)
    }

    /// Late events that were judged by another watermark than their partition's own: by a floor, or wrongly.
    async fn floors(&self, output: &str, source: &str, reading: u32, report: &mut Report) -> Result<BTreeMap<(i64, i64), i64>> {
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        let Some(log) = self.batch.logs.get(&(source.to_owned(), reading)) else { return Ok(BTreeMap::new()) };
        let mine = ident("output").eq(lit(output)).and(ident("source").eq(lit(source)));
        let judged = vec![int("partition"), int("offset"), cast(ident("watermark"), DataType::Int64).alias("judged")];
        let judged =
            self.set_aside(LATE_EVENTS)?.filter(mine).and_then(|rows| rows.select(judged)).and_then(DataFrame::distinct).map_err(wrong)?;
        let own = self.context.read_table(Arc::new(SpoolTable::new(&log.rows, &nothing()))).map_err(wrong)?;
        let own = own.select(vec![ident(PARTITION), ident(OFFSET), ident(WATERMARK)]).map_err(wrong)?;
        let both = judged.join(own, JoinType::Inner, &["partition", "offset"], &[PARTITION, OFFSET], None).map_err(wrong)?;
        let other = both.filter(ident(WATERMARK).is_null().or(ident(WATERMARK).not_eq(ident("judged")))).map_err(wrong)?;
        let other = other.select(vec![ident("partition"), ident("offset"), ident("judged"), ident(WATERMARK)]).map_err(wrong)?;
        let entry = self.batch.manifest.sources.iter().find(|entry| entry.name == source && entry.reading == reading);
        let floor_of = |partition: i64| {
            let positions = entry.into_iter().flat_map(|entry| &entry.partitions);
            positions.into_iter().find(|position| i64::from(position.partition) == partition).and_then(|position| position.floor)
        };
        let (mut floors, mut bad) = (BTreeMap::new(), Vec::new());
        for batch in self.collect(other).await? {
            for (row, [partition, offset, judged]) in numbers::<3>(std::slice::from_ref(&batch))?.into_iter().enumerate() {
                let own = batch.column(3).as_primitive::<Int64Type>();
                let own = own.is_valid(row).then(|| own.value(row));
                if own < Some(judged) && Some(judged) <= floor_of(partition) {
                    floors.insert((partition, offset), judged);
                } else {
                    bad.push((partition, offset));
                }
            }
        }
        if !floors.is_empty() {
            report.notes.push(format!(
                "{output}: {} records of {source} were judged by the watermark that was sealed while their partition was idle; when that was the log does not say",
                floors.len()
            ));
        }
        if let Some((partition, offset)) = bad.first() {
            let mut check = Check::new(output, "watermarks");
            check.wrong = Some(format!(
                "{} late events name a watermark that their partition did not have, the first one of {source} at partition {partition}, offset {offset}",
                bad.len()
            ));
            report.checks.push(check);
        }
        Ok(floors)
    }

    /// An output's late events against the rule.
    pub(super) async fn late(&self, output: &str, world: &OutputWorld<'_>, report: &mut Report) -> Result<()> {
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        let mut plans = Vec::new();
        // A record that is late for an output is so for those that read it, too.
        for each in self.batch.with_read(output)? {
            let lateness_us = self.batch.rules(&each.name).lateness_us;
            plans.extend(lowering::late(&each.plan, lateness_us, world).map_err(wrong)?);
        }
        let schema =
            Arc::new(Schema::new(["partition", "offset", WINDOW_START].map(|name| Field::new(name, DataType::Int64, true)).to_vec()));
        for (index, source) in self.sources(world.reading) {
            let mine = ident("output").eq(lit(output)).and(ident("source").eq(lit(&source)));
            let found = self.set_aside(LATE_EVENTS)?.filter(mine).map_err(wrong)?;
            // Where there are no windows a late row has none.
            let start = coalesce(vec![cast(ident(WINDOW_START), DataType::Int64), lit(0_i64)]).alias(WINDOW_START);
            let found = found.select(vec![int("partition"), int("offset"), start]);
            let found = found.map_err(wrong)?.into_unoptimized_plan();
            let expected = late_of(&plans, index as i64, &schema).map_err(wrong)?;
            let mut check = Check::new(output, "late events");
            check.take(self.compare_plans(&schema, &[], expected, found).await?);
            if check.expected + check.found > 0 || self.sources(world.reading).len() == 1 {
                report.checks.push(check);
            }
        }
        Ok(())
    }

    /// The dead letters of each source against decoding it again.
    pub(super) async fn dead(&self, report: &mut Report) -> Result<()> {
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        for source in &self.batch.pipeline.program.sources {
            // Only a source's first reading tells of records that nobody can read.
            let Some((_, log)) = self.batch.logs.iter().find(|((name, _), _)| *name == source.name) else { continue };
            let mine = ident("output").is_null().and(ident("source").eq(lit(&source.name)));
            let found = self.set_aside(DEAD_LETTERS)?.filter(mine).map_err(wrong)?;
            let found = found.select(vec![int("partition"), int("offset"), ident("reason")]).map_err(wrong)?.into_unoptimized_plan();
            let expected =
                self.context.read_table(Arc::new(SpoolTable::new(&log.dead, &nothing()))).map_err(wrong)?.into_unoptimized_plan();
            let mut check = Check::new(&source.name, "dead letters");
            check.take(self.compare_plans(&log::dead_schema(), &[], expected, found).await?);
            report.checks.push(check);
        }
        Ok(())
    }

    /// Records that an output put aside because an expression failed: does it fail in a batch of that record alone?
    async fn expressions(&self, output: &str, world: &OutputWorld<'_>, source: &str, dead: &BTreeSet<(i64, i64)>) -> Result<Option<Check>> {
        let wrong = |error: datafusion::common::DataFusionError| failed(&error);
        let Some(log) = self.batch.logs.get(&(source.to_owned(), world.reading)).filter(|_| !dead.is_empty()) else { return Ok(None) };
        let some: BTreeSet<(i64, i64)> = dead.iter().copied().take(EVALUATED_MAX).collect();
        let count = some.len() as u64;
        let mut check = Check::new(output, "failing records");
        if dead.len() > EVALUATED_MAX {
            check.note = Some(format!("the first {EVALUATED_MAX} of {} were evaluated again", dead.len()));
        }
        check.found = count;
        let aside = Arc::new(Aside { dead: some, inverted: true, ..Aside::default() });
        let rows = self.context.read_table(Arc::new(SpoolTable::new(&log.rows, &aside))).map_err(wrong)?;
        let planned = self.batch.planned(output)?;
        let rules = Rules { closed_only: false, ..self.batch.rules(output) };
        for batch in self.collect(rows).await? {
            for row in 0..batch.num_rows() {
                let one = OneRecord { of: world, source, row: batch.slice(row, 1) };
                let plan = lowering::rows(&planned.analyzed, rules, &one).map_err(wrong)?;
                let fails = match stream(self.context, plan).await {
                    Ok(rows) => datafusion::physical_plan::common::collect(rows).await.is_err(),
                    Err(_) => true,
                };
                if fails {
                    check.expected += 1;
                } else {
                    check.extra.add_batch(&one.row.project(&places(&one.row)?)?);
                }
            }
        }
        if check.expected + check.extra.total < count {
            check.wrong = Some(format!("{} of them are no good records of {source}", count - check.expected - check.extra.total));
        }
        Ok(Some(check))
    }
}

fn int(name: &str) -> datafusion::logical_expr::Expr {
    cast(ident(name), DataType::Int64).alias(name)
}

fn places(batch: &RecordBatch) -> Result<Vec<usize>> {
    [PARTITION, OFFSET].iter().map(|name| Ok(batch.schema().index_of(name)?)).collect()
}

/// The late rows of one source: a record that missed a window in two branches of a union is told once.
fn late_of(plans: &[LogicalPlan], source: i64, schema: &Schema) -> datafusion::common::Result<LogicalPlan> {
    let mut all: Option<LogicalPlanBuilder> = None;
    for plan in plans {
        let mine = LogicalPlanBuilder::from(plan.clone()).filter(col(SOURCE).eq(lit(source)))?;
        let mine = mine.project([col(PARTITION).alias("partition"), col(OFFSET).alias("offset"), col(WINDOW_START)])?;
        all = Some(match all {
            Some(all) => all.union(mine.build()?)?,
            None => mine,
        });
    }
    match all {
        Some(all) => all.distinct()?.build(),
        None => {
            let empty = LogicalPlanBuilder::empty(false);
            let columns = schema.fields().iter().map(|field| lit(datafusion::common::ScalarValue::Int64(None)).alias(field.name()));
            empty.project(columns.collect::<Vec<_>>())?.build()
        }
    }
}

/// The world with one record in it, where outputs that are read are computed from that record too.
struct OneRecord<'a> {
    of: &'a OutputWorld<'a>,
    source: &'a str,
    row: RecordBatch,
}

impl World for OneRecord<'_> {
    fn reads(&self, scan: &TableScan) -> datafusion::common::Result<Reads> {
        if let Some(output) = scan.source.downcast_ref::<OutputTable>() {
            let wrong = |error: Error| datafusion::common::DataFusionError::External(Box::new(error));
            let planned = self.of.batch.planned(&output.name).map_err(wrong)?;
            return Ok(Reads::Plan(planned.analyzed.clone(), Rules { closed_only: false, ..self.of.batch.rules(&output.name) }));
        }
        let Some(table) = scan.source.downcast_ref::<SourceTable>() else { return self.of.reads(scan) };
        let rows = if table.name == self.source { vec![self.row.clone()] } else { Vec::new() };
        let log = self.of.batch.logs.get(&(table.name.clone(), self.of.reading));
        let schema = log.map_or_else(|| self.row.schema(), |log| Arc::clone(&log.rows.schema));
        Ok(Reads::Rows(Arc::new(MemTable::try_new(schema, vec![rows])?)))
    }

    fn closed(&self, plan: &LogicalPlan) -> i64 {
        self.of.closed(plan)
    }
}

/// Rows of whole numbers.
fn numbers<const N: usize>(batches: &[RecordBatch]) -> Result<Vec<[i64; N]>> {
    let mut all = Vec::new();
    for batch in batches {
        let columns =
            batch.columns().iter().take(N).map(|column| Ok(cast_array(column, &DataType::Int64)?)).collect::<Result<Vec<ArrayRef>>>()?;
        if columns.len() < N || columns.iter().any(|column| column.null_count() > 0) {
            return Err(Error::failed("a place without its number"));
        }
        let value = |column: usize, row: usize| columns.get(column).map_or(0, |column| column.as_primitive::<Int64Type>().value(row));
        all.extend((0..batch.num_rows()).map(|row| std::array::from_fn(|column| value(column, row))));
    }
    Ok(all)
}

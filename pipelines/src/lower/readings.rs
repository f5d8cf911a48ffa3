//! Which outputs share a reading of their sources.
//!
//! Always: outputs that were in the file when the pipeline began belong to reading 0; what is added to a file whose pipeline has state
//! begins at its sources' `start`, in a reading of its own, and nothing of the others changes. A new output that reads an old one
//! can't use the old one's rows, which are half gone; the old one is run once more for it, without a table. Called by `lower`.

use std::collections::BTreeMap;

use datafusion::logical_expr::LogicalPlan;

use super::OutputPlan;
use crate::sql::OutputTable;

/// The outputs of each reading in the order of the file, each with whether it is written there.
pub(super) fn split<'a, 'b>(
    plans: &'b [OutputPlan<'a>],
    reading_of: &dyn Fn(&str) -> u32,
) -> BTreeMap<u32, Vec<(&'b OutputPlan<'a>, bool)>> {
    let mut readings: BTreeMap<u32, Vec<(&OutputPlan<'_>, bool)>> = BTreeMap::new();
    let all: std::collections::BTreeSet<u32> = plans.iter().map(|each| reading_of(&each.output.name)).collect();
    for reading in all {
        let mut needed: Vec<&str> = Vec::new();
        let mut members = Vec::new();
        // An output only reads those before it.
        for each in plans.iter().rev() {
            let written = reading_of(&each.output.name) == reading;
            if written || needed.contains(&each.output.name.as_str()) {
                outputs_read(&each.plan, &mut needed);
                members.push((each, written));
            }
        }
        members.reverse();
        readings.insert(reading, members);
    }
    readings
}

/// The names of the outputs that a plan reads.
fn outputs_read<'a>(plan: &'a LogicalPlan, into: &mut Vec<&'a str>) {
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(table) = scan.source.downcast_ref::<OutputTable>()
    {
        into.push(&table.name);
    }
    plan.inputs().into_iter().for_each(|input| outputs_read(input, into));
}

//! What a comparison came to, as data; the command prints it.

use datafusion::logical_expr::{Distinct, LogicalPlan, TableScan};
use tidemill_engine::epoch::manifest::Manifest;

use super::compare::{Compared, Sample};
use crate::sql::{TimeKind, time_kinds};

/// All of it.
#[derive(Debug)]
pub struct Report {
    /// The pipeline.
    pub pipeline: String,
    /// The epoch that was compared.
    pub epoch: u64,
    /// Every window was published: a bounded run had ended.
    pub ended: bool,
    /// Records that were read again.
    pub records: u64,
    /// What was compared, in the order of the file.
    pub checks: Vec<Check>,
    /// What a user should know besides.
    pub notes: Vec<String>,
}

/// One comparison.
#[derive(Debug)]
pub struct Check {
    /// Of which output or source.
    pub of: String,
    /// Rows, late events, dead letters, records.
    pub what: &'static str,
    /// How many the batch has.
    pub expected: u64,
    /// How many the run has.
    pub found: u64,
    /// Those that the batch alone has.
    pub missing: Sample,
    /// Those that the run alone has.
    pub extra: Sample,
    /// How it was compared, when not to the last bit.
    pub note: Option<String>,
    /// What else is wrong.
    pub wrong: Option<String>,
}

impl Check {
    /// Nothing compared yet.
    pub fn new(of: &str, what: &'static str) -> Self {
        let (missing, extra) = (Sample::default(), Sample::default());
        Self { of: of.to_owned(), what, expected: 0, found: 0, missing, extra, note: None, wrong: None }
    }

    pub(super) fn take(&mut self, compared: Compared) {
        (self.expected, self.found) = (compared.expected, compared.found);
        (self.missing, self.extra) = (compared.missing, compared.extra);
    }

    /// Whether the run is not what the batch says.
    pub fn differs(&self) -> bool {
        self.missing.total > 0 || self.extra.total > 0 || self.wrong.is_some()
    }
}

impl Report {
    pub(super) fn new(pipeline: &str, manifest: &Manifest, records: u64) -> Self {
        let (checks, notes) = (Vec::new(), Vec::new());
        Self { pipeline: pipeline.to_owned(), epoch: manifest.epoch, ended: manifest.ended, records, checks, notes }
    }

    /// Whether anything differs.
    pub fn differs(&self) -> bool {
        self.checks.iter().any(Check::differs)
    }
}

/// Whether something that has no windows is made of results that were published by windows, within one view.
pub(super) fn hides_windows(plan: &LogicalPlan) -> bool {
    let windowed = |plan: &LogicalPlan| time_kinds(plan).into_iter().flatten().any(TimeKind::is_window);
    let keeps = matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_) | LogicalPlan::Distinct(Distinct::All(_)));
    let inputs = plan.inputs();
    (keeps && !windowed(plan) && inputs.iter().any(|input| closes(input))) || inputs.into_iter().any(hides_windows)
}

/// Whether it joins streams, or reads an output that does.
pub(super) fn joins(plan: &LogicalPlan, plan_of: &dyn Fn(&TableScan) -> Option<LogicalPlan>) -> bool {
    match plan {
        LogicalPlan::Join(_) => true,
        LogicalPlan::TableScan(scan) => plan_of(scan).is_some_and(|plan| joins(&plan, plan_of)),
        other => other.inputs().into_iter().any(|input| joins(input, plan_of)),
    }
}

/// Whether results in it are published by windows.
fn closes(plan: &LogicalPlan) -> bool {
    let aggregated = matches!(plan, LogicalPlan::Aggregate(_)) && time_kinds(plan).into_iter().flatten().any(TimeKind::is_window);
    aggregated || plan.inputs().into_iter().any(closes)
}

//! `tidemill check FILE.sql`: what a pipeline reads, does and keeps, or why it is refused. Contacts no broker, writes nothing.
//!
//! Always: what `run` would refuse by the file alone is refused here in the same words; state that nothing bounds stands out. How plans
//! become steps is in `check_plan`.

use std::fmt::Write as _;
use std::io::Write;

use datafusion::logical_expr::LogicalPlan;
use tidemill_connectors::tombstone::DELETED_COLUMN;
use tidemill_engine::error::Result;
use tidemill_pipelines::runner::Pipeline;
use tidemill_pipelines::sources::Connections;
use tidemill_pipelines::sql::{
    Connector, Emit, KeyFormat, Output, OutputTable, PlannedOutput, Program, Sink, SinkConnector, Source, Start, TimestampUnit,
    show_duration, sql_name,
};

use crate::check_plan::{Kept, steps};
use crate::cli::{CheckArgs, Common};
use crate::console::{paint, stdout_colours};
use crate::exit::{Out, Outcome};
use crate::run::going;

/// Columns of the labels on the left.
const LABEL: usize = 12;
/// Longer values are folded, and cut at last.
const WIDTH_MAX: usize = 120;
const CHARACTERS_MAX: usize = 1200;

pub fn check(args: &CheckArgs, common: &Common) -> Outcome {
    let pipeline = Pipeline::read(&args.file)?;
    // Nobody is asked: an address is needed only to make clients that are never used.
    let brokers = common.brokers().unwrap_or_else(|| "127.0.0.1:9092".to_owned());
    let connections = Connections::new(Some(brokers), common.kafka.clone(), pipeline.name(), common.workers());
    let flow = pipeline.dataflow(&connections, None)?;
    let mut text = String::new();
    let on = stdout_colours();
    heading(&mut text, &format!("pipeline {}", pipeline.name()), &pipeline.program.file, on);
    for source in &pipeline.program.sources {
        let spec = flow.sources.iter().find(|spec| spec.name == source.name);
        let columns = spec.map(|spec| {
            let names = spec.schema.fields().iter().map(|field| field.name().clone());
            names.filter(|name| name != DELETED_COLUMN).collect::<Vec<_>>()
        });
        of_source(&mut text, source, columns.as_deref(), common, on);
    }
    for planned in &pipeline.planned {
        let output = pipeline.program.outputs.iter().find(|output| output.name == planned.name);
        if let Some(output) = output {
            of_output(&mut text, &pipeline.program, output, planned, common, on)?;
        }
    }
    let mut out = Out::new();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn heading(text: &mut String, title: &str, rest: &str, on: bool) {
    if !text.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "{}  {rest}", paint("1", title, on));
}

/// A label and its value, folded at spaces.
fn row(text: &mut String, label: &str, value: &str) {
    let mut label = label;
    let mut indent = 0;
    for line in folded(value) {
        let _ = writeln!(text, "  {label:LABEL$}{:indent$}{line}", "");
        (label, indent) = ("", 4);
    }
}

fn folded(value: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut width = 0;
    let mut budget = CHARACTERS_MAX;
    for word in value.split_whitespace() {
        let length = word.chars().count();
        if budget < length {
            lines.push("…".to_owned());
            break;
        }
        budget -= length;
        if width > 0 && width + 1 + length > WIDTH_MAX {
            lines.push(String::new());
            width = 0;
        }
        if let Some(line) = lines.last_mut() {
            if width > 0 {
                line.push(' ');
            }
            line.push_str(word);
        }
        width += length + 1;
    }
    lines
}

fn of_source(text: &mut String, source: &Source, columns: Option<&[String]>, common: &Common, on: bool) {
    heading(text, &format!("source {}", source.name), &from(source, common), on);
    let Some(columns) = columns else {
        row(text, "columns", "none: no output reads it, so it is not read");
        return;
    };
    let declared = source.columns.len();
    let read: Vec<String> = columns
        .iter()
        .map(|name| match source.columns.iter().find(|column| column.name == *name) {
            Some(column) => format!("{name} {}", sql_name(&column.data_type)),
            None => name.clone(),
        })
        .collect();
    row(text, "built", &format!("{} of {declared} declared; the others are only checked", columns.len()));
    row(text, "", &read.join(", "));
    row(text, "records", &records(source));
    if !source.primary_key.is_empty() {
        row(text, "changelog", &changelog(source));
    }
    match &source.watermark {
        Some(watermark) => {
            row(text, "event time", &format!("{}, its watermark {} behind", watermark.column, show_duration(watermark.delay_us)))
        }
        None => row(text, "event time", "none: it has no WATERMARK, so it can't be windowed"),
    }
    if source.watermark.is_some() {
        match source.options.max_future_us {
            Some(most) => row(
                text,
                "max_future",
                &format!("a row more than {} ahead of its record's timestamp is a dead letter", show_duration(most)),
            ),
            None => row(text, "max_future", &paint("33", "unlimited: one wrong clock can close every window", on)),
        }
        if source.options.max_future_us.is_some() && matches!(source.options.connector, Connector::Kafka { .. }) {
            row(text, "", "a true guard only where the topic stamps on append (message.timestamp.type=LogAppendTime)");
        }
        row(
            text,
            "idle_after",
            &format!("a partition whose end was reached {} ago holds no window back", show_duration(source.options.idle_after_us)),
        );
    }
}

fn from(source: &Source, common: &Common) -> String {
    let start = match source.options.start {
        Start::Earliest => "from the earliest record".to_owned(),
        Start::Latest => "from what comes after the first start".to_owned(),
        Start::At(us) => chrono::DateTime::from_timestamp_micros(us).map_or_else(String::new, |at| format!("from {}", at.to_rfc3339())),
    };
    match &source.options.connector {
        Connector::Kafka { topic, brokers, .. } => {
            let at = brokers.clone().or_else(|| common.brokers()).unwrap_or_else(|| "the brokers that --brokers names".to_owned());
            format!("topic {topic} at {at}, {start}")
        }
        Connector::File { path, .. } => format!("file {path}"),
        Connector::Generator { case, count, .. } => match count {
            Some(count) => format!("generator {case}, {count} records"),
            None => format!("generator {case}, without end"),
        },
    }
}

fn records(source: &Source) -> String {
    let format = &source.options.format;
    let unit = match format.timestamp_unit {
        TimestampUnit::Seconds => "seconds",
        TimestampUnit::Milliseconds => "milliseconds",
        TimestampUnit::Microseconds => "microseconds",
        TimestampUnit::Nanoseconds => "nanoseconds",
    };
    let unknown = if format.unknown_fields_reject { "unknown fields make a dead letter" } else { "unknown fields are ignored" };
    let coerce = if format.coerce { "; numbers and strings are taken for each other" } else { "" };
    format!("one JSON object each, times in {unit}; {unknown}{coerce}")
}

/// What replaces and what deletes a row.
fn changelog(source: &Source) -> String {
    let key = source.primary_key.join(", ");
    let deletes = match (&source.options.connector, source.options.key_format) {
        (Connector::File { .. }, _) => "a file's records have no key, so none deletes",
        (_, KeyFormat::Text) => "a null payload deletes the row that its record's key names, as text",
        (_, KeyFormat::Json) => "a null payload deletes the row that its record's key names, in JSON",
    };
    format!("a record replaces the row of its {key}; {deletes}")
}

fn of_output(text: &mut String, program: &Program, output: &Output, planned: &PlannedOutput, common: &Common, on: bool) -> Result<()> {
    let plan = steps(planned, output);
    match program.sink_of(output) {
        Some(sink) => {
            heading(text, &format!("sink {}", output.name), &format!("line {}", output.at.line), on);
            row(text, "to", &going(sink, common.brokers().as_deref()));
            row(text, "columns", &sink.columns.iter().map(|column| column.spelled.as_str()).collect::<Vec<_>>().join(", "));
            row(text, "delivered", &delivered(program, sink, planned, &plan.kept));
        }
        None => {
            heading(text, &format!("output {}", output.name), &format!("line {}", output.at.line), on);
            row(text, "key", &key(planned));
            row(text, "published", &published(output, &plan.kept));
        }
    }
    for (index, step) in plan.steps.iter().enumerate() {
        row(text, if index == 0 { "plan" } else { "" }, step);
    }
    for (index, (call, cost)) in plan.aggregates.iter().enumerate() {
        row(text, if index == 0 { "aggregates" } else { "" }, &format!("{call}: {cost}"));
    }
    for (index, kept) in plan.kept.iter().enumerate() {
        let shown = if kept.for_ever { paint("33", &kept.text, on) } else { kept.text.clone() };
        row(text, if index == 0 { "state" } else { "" }, &shown);
    }
    let sink = program.sink_of(output);
    let held = sink.is_some_and(|sink| sink.primary_key.is_empty() && sink.connector != SinkConnector::Blackhole) && planned.key.is_some();
    if held {
        row(text, if plan.kept.is_empty() { "state" } else { "" }, "the results that are not final yet");
    } else if plan.kept.is_empty() {
        row(text, "state", "none");
    }
    Ok(())
}

fn key(planned: &PlannedOutput) -> String {
    match &planned.key {
        None => "none: rows are appended and stay as they are".to_owned(),
        Some(key) if key.is_empty() => "none: it is one row".to_owned(),
        Some(key) => {
            let hidden = |output: Option<usize>| if output.is_none() { " (not selected, kept hidden)" } else { "" };
            key.iter().map(|column| format!("{}{}", column.name, hidden(column.output))).collect::<Vec<_>>().join(", ")
        }
    }
}

/// When a sink gets what.
fn delivered(program: &Program, sink: &Sink, planned: &PlannedOutput, kept: &[Kept]) -> String {
    let how = match &sink.connector {
        SinkConnector::Kafka { .. } => "in one transaction an epoch",
        SinkConnector::File { .. } => "in one file an epoch",
        SinkConnector::Blackhole => return "nowhere: rows are counted and dropped".to_owned(),
    };
    let views = views_read(&planned.plan);
    if !sink.primary_key.is_empty() {
        let key = sink.primary_key.join(", ");
        return format!("when published, by {key}, and each repair again; a result that is gone as a tombstone; {how}");
    }
    if kept.is_empty() && planned.key.is_none() {
        return format!("row by row as they come; {how}");
    }
    let lateness = |view: &String| program.outputs.iter().find(|output| output.name == *view).map_or(0, |output| output.lateness_us);
    let late = match views.iter().map(lateness).sum::<i64>() {
        0 => String::new(),
        us => format!(" + {}", show_duration(us)),
    };
    format!("once, when final: the watermark has passed window_end{late} (of a session also its gap); {how}")
}

/// The materialized views that a plan reads.
fn views_read(plan: &LogicalPlan) -> Vec<String> {
    let mut views: Vec<String> = plan.inputs().into_iter().flat_map(views_read).collect();
    if let LogicalPlan::TableScan(scan) = plan
        && let Some(view) = scan.source.downcast_ref::<OutputTable>()
        && !views.contains(&view.name)
    {
        views.push(view.name.clone());
    }
    views
}

fn published(output: &Output, kept: &[Kept]) -> String {
    let windowed = kept.iter().any(|kept| kept.windowed);
    let when = match (output.emit, windowed, kept.is_empty()) {
        (Some(Emit::Changes), _, false) | (None, false, false) => "each epoch, whatever has changed",
        (_, _, true) => "each epoch, its rows as they come",
        _ => "once the watermark has passed the window's end",
    };
    if !windowed {
        return when.to_owned();
    }
    match output.lateness_us {
        0 => format!("{when}; a row later than that goes to late_events"),
        lateness => format!("{when}; for {} more a late row repairs the result, then it goes to late_events", show_duration(lateness)),
    }
}

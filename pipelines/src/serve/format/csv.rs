//! CSV as RFC 4180 has it: quoted where a reader could misread it, NULL as nothing, an empty string as `""`.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;

use super::value::{Look, is_null, write_text};

pub(super) fn header(schema: &Schema) -> String {
    let mut line = String::new();
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        quote(field.name(), &mut line);
    }
    line.push('\n');
    line
}

pub(super) fn row(batch: &RecordBatch, row: usize, line: &mut String) {
    let mut value = String::new();
    for (index, column) in batch.columns().iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        if !is_null(column, row) {
            value.clear();
            write_text(column, row, Look::Program, &mut value);
            quote(&value, line);
        }
    }
    line.push('\n');
}

fn quote(value: &str, line: &mut String) {
    let odd = value.is_empty() || value.starts_with(' ') || value.ends_with(' ') || value.contains(['"', ',', '\n', '\r']);
    if !odd {
        line.push_str(value);
        return;
    }
    line.push('"');
    for part in value.split_inclusive('"') {
        line.push_str(part);
        if part.ends_with('"') {
            line.push('"');
        }
    }
    line.push('"');
}

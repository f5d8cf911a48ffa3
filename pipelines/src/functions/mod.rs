//! Scalar functions that Tidemill adds to DataFusion's, in pipelines and queries alike. To add one: its file, its line in `ALL`.
//!
//! Always deterministic: a function of its arguments alone.

mod url_host;
mod user_agent;

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

/// Every function of this build.
pub fn all() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(url_host::UrlHost::new())), Arc::new(ScalarUDF::from(user_agent::UserAgent::new()))]
}

/// The only argument as string views, one a row.
fn texts(args: &ScalarFunctionArgs) -> Result<ArrayRef> {
    let array = match args.args.first() {
        Some(ColumnarValue::Array(array)) => Arc::clone(array),
        Some(ColumnarValue::Scalar(scalar)) => scalar.to_array_of_size(args.number_rows)?,
        None => return datafusion::common::exec_err!("a text is needed"),
    };
    Ok(if *array.data_type() == DataType::Utf8View { array } else { cast(&array, &DataType::Utf8View)? })
}

/// The texts of an array of string views.
fn each(array: &ArrayRef) -> impl Iterator<Item = Option<&str>> {
    let views = array.as_string_view();
    (0..views.len()).map(move |row| if views.is_null(row) { None } else { Some(views.value(row)) })
}

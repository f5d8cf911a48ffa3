//! `url_host(url)`: the host of a URL in lower case, without port, user and trailing dot; NULL when there is none.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringViewBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct UrlHost {
    signature: Signature,
}

impl UrlHost {
    pub(super) fn new() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for UrlHost {
    fn name(&self) -> &'static str {
        "url_host"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let urls = super::texts(&args)?;
        let mut hosts = StringViewBuilder::new();
        super::each(&urls).for_each(|url| hosts.append_option(url.and_then(host)));
        Ok(ColumnarValue::Array(Arc::new(hosts.finish()) as ArrayRef))
    }
}

/// The authority of `scheme://authority/…` (RFC 3986 §3.2), reduced to its host.
fn host(url: &str) -> Option<String> {
    let (scheme, rest) = url.trim().split_once("://")?;
    if scheme.is_empty() || !scheme.chars().all(|each| each.is_ascii_alphanumeric() || "+-.".contains(each)) {
        return None;
    }
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let host = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => format!("[{address}]"),
        None => place.split(':').next()?.trim_end_matches('.').to_lowercase(),
    };
    let odd = |each: char| each.is_whitespace() || each.is_control() || "<>\"'`{}|^%;,".contains(each);
    (!host.is_empty() && !host.contains(odd)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn hosts_are_found_or_not_there() {
        let table = [
            ("https://News.Example.com/a?b", Some("news.example.com")),
            ("http://user:pw@example.org:8080", Some("example.org")),
            ("https://example.com./", Some("example.com")),
            ("http://[::1]:80/x", Some("[::1]")),
            ("android-app://com.app/x", Some("com.app")),
            ("example.com/a", None),
            ("https:///x", None),
            ("https://<script>alert(1)</script>", None),
            ("' OR 1=1 --", None),
            ("", None),
        ];
        for (url, expected) in table {
            assert_eq!(host(url).as_deref(), expected, "{url}");
        }
    }
}

//! `user_agent(ua)`: browser, operating system, kind of device and whether it is a robot, from a User-Agent header (woothee's rules).
//!
//! woothee knows no tablets and not every tool that calls itself by name: iPads and Android without `Mobile` are tablets here, and
//! tools and headless browsers are robots. NULL and unknown agents give 'other'. Agents repeat, so answers are remembered a batch.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanBuilder, StringViewBuilder, StructArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use woothee::parser::Parser;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct UserAgent {
    signature: Signature,
}

impl UserAgent {
    pub(super) fn new() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

fn fields() -> Fields {
    let text = |name: &str| Field::new(name, DataType::Utf8View, true);
    vec![text("browser"), text("os"), text("device"), Field::new("bot", DataType::Boolean, true)].into()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Agent {
    browser: String,
    os: String,
    device: &'static str,
    bot: bool,
}

impl ScalarUDFImpl for UserAgent {
    fn name(&self) -> &'static str {
        "user_agent"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Struct(fields()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let agents = super::texts(&args)?;
        let [mut browser, mut os, mut device] = std::array::from_fn(|_| StringViewBuilder::new());
        let (mut bot, mut valid) = (BooleanBuilder::new(), Vec::with_capacity(agents.len()));
        let parser = Parser::new();
        let mut known: HashMap<&str, Agent> = HashMap::new();
        for text in super::each(&agents) {
            valid.push(text.is_some());
            let agent = text.map(|text| &*known.entry(text).or_insert_with(|| read(&parser, text)));
            // A NULL struct has NULL fields: readers of a field don't look at the struct's own validity.
            browser.append_option(agent.map(|agent| agent.browser.as_str()));
            os.append_option(agent.map(|agent| agent.os.as_str()));
            device.append_option(agent.map(|agent| agent.device));
            bot.append_option(agent.map(|agent| agent.bot));
        }
        let columns: Vec<ArrayRef> =
            vec![Arc::new(browser.finish()), Arc::new(os.finish()), Arc::new(device.finish()), Arc::new(bot.finish())];
        Ok(ColumnarValue::Array(Arc::new(StructArray::try_new(fields(), columns, Some(NullBuffer::from(valid)))?)))
    }
}

/// Names of tools that woothee does not know, or takes for the browser they are built on.
const TOOLS: &[&str] = &["whatsapp/", "python-requests/", "go-http-client/", "headlesschrome", "curl/", "wget/", "okhttp/"];

fn read(parser: &Parser, text: &str) -> Agent {
    let lower = text.to_lowercase();
    let tool = TOOLS.iter().any(|tool| lower.contains(tool));
    let Some(found) = parser.parse(text) else {
        return Agent { browser: "other".into(), os: "other".into(), device: if tool { "bot" } else { "other" }, bot: tool };
    };
    let bot = tool || found.category == "crawler" || found.name == "HTTP Library";
    let named = |text: &str| if text.is_empty() || text == "UNKNOWN" { "other".to_owned() } else { text.to_owned() };
    let tablet = found.os == "iPad" || (lower.contains("android") && !lower.contains("mobile"));
    let device = match found.category {
        _ if bot => "bot",
        _ if tablet => "tablet",
        "pc" => "desktop",
        "smartphone" | "mobilephone" => "phone",
        _ => "other",
    };
    Agent { browser: named(found.name), os: named(found.os), device, bot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_apart() {
        let parser = Parser::new();
        let table = [
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "desktop",
                false,
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "phone",
                false,
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "tablet",
                false,
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; SM-X710) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "tablet",
                false,
            ),
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot", true),
            ("python-requests/2.32.3", "bot", true),
            ("curl/8.7.1", "bot", true),
            ("", "other", false),
        ];
        for (text, device, bot) in table {
            let agent = read(&parser, text);
            assert_eq!((agent.device, agent.bot), (device, bot), "{text}");
        }
    }
}

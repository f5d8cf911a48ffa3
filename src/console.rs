//! Standard error as people read it: lines, one line that is rewritten in place, colours on a terminal, numbers with units.
//!
//! Always: a line printed here or by the log never tears the one that is rewritten; nothing is coloured when it is not a terminal or
//! NO_COLOR is set; a stderr that is closed is ignored. Results do not come here: they go to stdout.

use std::io::{self, IsTerminal, Write};
use std::sync::{LazyLock, Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Whether stderr is a terminal that can rewrite a line.
pub static LIVE: LazyLock<bool> = LazyLock::new(|| io::stderr().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb"));

static NO_COLOUR: LazyLock<bool> = LazyLock::new(|| std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()));

/// Whether stderr takes colours.
pub fn colours() -> bool {
    *LIVE && !*NO_COLOUR
}

/// Whether stdout takes colours.
pub fn stdout_colours() -> bool {
    io::stdout().is_terminal() && !*NO_COLOUR && std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// `text` in red on a terminal.
pub fn red(text: &str) -> String {
    paint("1;31", text, colours())
}

/// `text` in an ANSI style, if `on`.
pub fn paint(style: &str, text: &str, on: bool) -> String {
    if on { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Whether a line that will be rewritten stands there.
static STANDING: Mutex<bool> = Mutex::new(false);

/// Prints a line.
pub fn say(text: &str) {
    write_over(&format!("{text}\n"), false);
}

/// Rewrites the line that stands; cut to the terminal's width. Only where `LIVE`.
pub fn rewrite(text: &str) {
    let width = width();
    let shown: String =
        if text.chars().count() < width { text.to_owned() } else { text.chars().take(width.saturating_sub(2)).chain(['…']).collect() };
    write_over(&shown, true);
}

/// Takes the line that stands away.
pub fn clear() {
    write_over("", false);
}

fn write_over(text: &str, stands: bool) {
    let mut standing = STANDING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bytes = Vec::with_capacity(text.len() + 8);
    if *standing {
        bytes.extend_from_slice(b"\r\x1b[K");
    }
    bytes.extend_from_slice(text.as_bytes());
    *standing = stands;
    // Nobody reads what can't be written.
    let _ = io::stderr().lock().write_all(&bytes);
}

/// The terminal's columns.
fn width() -> usize {
    // SAFETY: an all-zero winsize is valid, and the call writes nothing but it.
    let columns = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size) == 0 { size.ws_col } else { 0 }
    };
    if columns < 20 { 80 } else { usize::from(columns) }
}

/// Where the log is written.
pub struct LogLines;

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLine;

    fn make_writer(&'a self) -> Self::Writer {
        LogLine(Vec::new())
    }
}

/// One event of the log.
pub struct LogLine(Vec<u8>);

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        write_over(&String::from_utf8_lossy(&self.0), false);
    }
}

/// `1234567` as `1,234,567`.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a unit of 1,000.
pub fn bytes(value: u64) -> String {
    let mut scaled = value as f64;
    let mut unit = "B";
    for next in ["kB", "MB", "GB", "TB"] {
        if scaled < 1000.0 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{value} B") } else { format!("{scaled:.1} {unit}") }
}

/// A length of time in the unit that fits.
pub fn seconds(value: f64) -> String {
    match value {
        value if value < 0.9995 => format!("{:.0} ms", value * 1000.0),
        value if value < 99.95 => format!("{value:.1} s"),
        value if value < 7200.0 => format!("{:.0} min", value / 60.0),
        value => format!("{:.1} h", value / 3600.0),
    }
}

/// `n thing` or `n things`.
pub fn count(value: u64, thing: &str) -> String {
    format!("{} {thing}{}", number(value), if value == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_units_fit() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12, 999, 1000, 1_250_000].map(bytes), ["12 B", "999 B", "1.0 kB", "1.2 MB"]);
        assert_eq!([0.0123, 0.9999, 61.25, 120.0, 7300.0].map(seconds), ["12 ms", "1.0 s", "61.2 s", "2 min", "2.0 h"]);
        assert_eq!([count(1, "row"), count(2000, "row")], ["1 row", "2,000 rows"]);
    }
}

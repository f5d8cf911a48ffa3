//! How the command ends: errors to text and exit codes, panics to one plain line, scratch folders removed on every way out.
//!
//! Always: 0 done, 1 failed, 2 refused, 130 when the user insists; no message holds a Rust path or a backtrace; a reader of stdout that
//! goes away (`| head`) ends the command quietly. Every subcommand answers `Outcome`; `main` alone turns it into a code.

use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tidemill_engine::error::{Error, Kind};

use crate::console;

/// What a subcommand comes to.
pub type Outcome<T = ()> = Result<T, Stop>;

/// Why a command ends early.
#[derive(Debug)]
pub enum Stop {
    /// With a message and its kind's exit code.
    Error(Error),
    /// With this code and nothing more to say.
    Code(u8),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Code(0),
            _ => Self::Error(Error::external(error.to_string())),
        }
    }
}

/// The user must change something first: exit 2.
pub fn refused(message: impl Into<String>) -> Stop {
    Stop::Error(Error::refused(message))
}

/// Prints what there is to say and gives the code.
pub fn finish(outcome: Outcome) -> ExitCode {
    remove_scratch();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Code(code)) => ExitCode::from(code),
        Err(Stop::Error(error)) => {
            tell(&error);
            ExitCode::from(code(&error))
        }
    }
}

/// An error's exit code.
pub fn code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Refused => 2,
        Kind::External | Kind::Failed => 1,
    }
}

/// Prints an error. One of the SQL begins with its place already.
pub fn tell(error: &Error) {
    let text = error.message();
    let first = text.lines().next().unwrap_or_default();
    if placed(first) {
        let shown = text.replacen(": error: ", &format!(": {} ", console::red("error:")), 1);
        console::say(&shown);
    } else {
        console::say(&format!("{} {text}", console::red("error:")));
    }
}

/// `FILE:LINE:COL: error: …`.
fn placed(line: &str) -> bool {
    let Some((place, _)) = line.split_once(": error: ") else { return false };
    let mut parts = place.rsplitn(3, ':');
    let number = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    number(parts.next()) && number(parts.next()) && parts.next().is_some()
}

/// Folders that do not outlive the command.
static SCRATCH: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// The folder goes when the command ends, however it ends.
pub fn remove_at_exit(folder: &Path) {
    SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
}

fn remove_scratch() {
    for folder in SCRATCH.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        // Nothing can be done about a folder that won't go, and it lies among temporary files.
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Ends the process at once, whatever other threads do. Libraries' exit handlers are left out: they would pull the ground from under
/// threads that still run.
pub fn leave(code: i32) -> ! {
    console::clear();
    remove_scratch();
    let _ = io::stdout().flush();
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// The prompt lives on when a query breaks.
static SURVIVE: AtomicBool = AtomicBool::new(false);

/// After this a panic is told, and the thread alone ends.
pub fn survive_panics() {
    SURVIVE.store(true, Ordering::Relaxed);
}

/// One plain line for a panic, whatever RUST_BACKTRACE says, and exit 1. Nothing is lost by leaving at once: an epoch is whole or absent.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        let message = info.payload_as_str().unwrap_or("no message").lines().next().unwrap_or_default();
        console::say(&format!("{} {message}; this is a bug in Tidemill", console::red("internal error:")));
        if !SURVIVE.load(Ordering::Relaxed) {
            leave(1);
        }
    }));
}

/// Standard output for results. When its reader has gone the command ends at once, as other commands do.
pub struct Out(io::BufWriter<io::StdoutLock<'static>>);

impl Out {
    /// The only one at a time.
    pub fn new() -> Self {
        Self(io::BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }
}

fn quietly<T>(result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && error.kind() == io::ErrorKind::BrokenPipe
    {
        console::clear();
        remove_scratch();
        // SAFETY: takes a number and does not return.
        unsafe { libc::_exit(0) }
    }
    result
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        quietly(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        quietly(self.0.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_file_a_line_and_a_column() {
        assert!(placed("a/b.sql:3:14: error: there is no table x"));
        assert!(!placed("topic a: error: b"));
        assert!(!placed("there is no table x"));
    }

    #[test]
    fn codes_follow_the_kind() {
        assert_eq!([Error::refused(""), Error::external(""), Error::failed("")].map(|error| code(&error)), [2, 1, 1]);
    }
}

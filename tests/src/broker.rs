//! The real Apache Kafka broker of the tests: `deploy/kafka/kafka start`, once a process, and its address.
//! Always: a broker that already runs for this checkout (or that TIDEMILL_BROKERS names) is reused and left alone; one that
//! was started for this process ends after it. A test makes topics under names of its own, for all of them share the broker.
//! Not here: topics, clients, and the decision to skip, which is the test's. Called by every test that needs a real broker.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The broker's `host:port`, or why there is none (no Java, no Maven, jars that are not the listed ones, …).
pub fn broker() -> Result<String, String> {
    static BROKER: OnceLock<Result<String, String>> = OnceLock::new();
    BROKER.get_or_init(start).clone()
}

/// Whether a missing broker fails a test. On a person's machine it is a reason to skip, said aloud; in CI it never is.
pub fn required() -> bool {
    std::env::var_os("CI").is_some()
}

fn start() -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kafka/kafka");
    let done = Command::new(&script)
        .args(["start", "--while", &std::process::id().to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not run: {error}", script.display()))?;
    let address = String::from_utf8_lossy(&done.stdout).trim().to_owned();
    if done.status.success() && !address.is_empty() {
        return Ok(address);
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(match said.trim() {
        "" => format!("{} start: {}", script.display(), done.status),
        said => said.to_owned(),
    })
}

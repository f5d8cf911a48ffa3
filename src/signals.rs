//! Ctrl-C and SIGTERM: the first asks for an orderly end, the second leaves at once with 130.
//!
//! Always: the same for both signals. Called once by the subcommands that write; `sql` handles Ctrl-C itself.

use std::thread;

use tidemill_engine::error::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit;

/// Calls `first` at the first signal, on a thread of its own; the second ends the process.
pub fn on_stop(first: impl Fn() + Send + 'static) -> Result<()> {
    let wrong = |error: std::io::Error| Error::failed(format!("signals can't be watched: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(wrong)?;
    let (mut interrupts, mut terms) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(wrong)?, signal(SignalKind::terminate()).map_err(wrong)?)
    };
    let watch = move || {
        runtime.block_on(async {
            for insisted in [false, true] {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terms.recv() => {}
                }
                if insisted {
                    exit::leave(130);
                }
                first();
            }
        });
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(wrong)?;
    Ok(())
}

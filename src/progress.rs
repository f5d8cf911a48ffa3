//! What a run shows of itself: one line that is rewritten on a terminal, a plain line every few seconds elsewhere, a summary at the end.
//!
//! Always: reads figures and flags only, so that showing them slows nothing down; all of it goes to stderr; `--quiet` shows none of it.
//! Used by `run` and `demo`; the engine tells it of epochs through `Watch`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemill_connectors::kafka::KafkaStatus;
use tidemill_engine::epoch::manifest::Manifest;
use tidemill_engine::worker::Shared;
use tidemill_pipelines::runner::{Pipeline, Watch};
use tidemill_pipelines::sources::Connections;

use crate::console::{self, LIVE, number, say};
use crate::lag::Lag;

const LIVE_EVERY: Duration = Duration::from_millis(250);
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Rates are over this, or over the time between two plain lines.
const RATE_OVER: Duration = Duration::from_secs(1);
/// Trouble that lasts is told again after this, where lines are not rewritten.
const REMIND_AFTER: Duration = Duration::from_secs(10);
/// Without a new record for so long, with nothing left to read, what is open waits for newer events.
const IDLE_AFTER: Duration = Duration::from_secs(3);
const DAY_US: i64 = 86_400_000_000;

/// See the module doc.
pub struct Progress {
    pipeline: Arc<Pipeline>,
    quiet: bool,
    inner: Mutex<Inner>,
    started: AtomicBool,
    done: AtomicBool,
}

#[derive(Default)]
struct Inner {
    shared: Option<Arc<Shared>>,
    status: Option<Arc<KafkaStatus>>,
    lag: Option<Lag>,
    epoch: u64,
    epoch_at: Option<Instant>,
    /// Which start this is.
    incarnation: Option<String>,
    waited: bool,
    /// When, and how many records had been read.
    samples: VecDeque<(Instant, u64)>,
    last_row_at: Option<Instant>,
    trouble_told: Option<(String, Instant)>,
}

/// The thread that shows; ends when dropped.
pub struct Showing {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Nothing to show yet.
    pub fn new(pipeline: &Arc<Pipeline>, quiet: bool) -> Arc<Self> {
        Arc::new(Self {
            pipeline: Arc::clone(pipeline),
            quiet,
            inner: Mutex::default(),
            started: AtomicBool::new(false),
            done: AtomicBool::new(false),
        })
    }

    /// Whether the workers run.
    pub fn started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// Shows from now on.
    pub fn show(self: &Arc<Self>) -> Showing {
        let progress = Arc::clone(self);
        let every = if *LIVE { LIVE_EVERY } else { PLAIN_EVERY };
        let run = move || {
            let mut last = Instant::now();
            while !progress.done.load(Ordering::Acquire) {
                thread::park_timeout(LIVE_EVERY);
                if !progress.done.load(Ordering::Acquire) {
                    progress.tick(last.elapsed() + Duration::from_millis(20) >= every, &mut last);
                }
            }
        };
        let thread = if self.quiet { None } else { thread::Builder::new().name("progress".to_owned()).spawn(run).ok() };
        Showing { progress: Arc::clone(self), thread }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, due: bool, last: &mut Instant) {
        let mut inner = self.inner();
        let Some(shared) = inner.shared.clone() else { return };
        let now = Instant::now();
        let rows = shared.rows_in.load(Ordering::Relaxed);
        let rate_over = if *LIVE { RATE_OVER } else { PLAIN_EVERY };
        if inner.samples.len() == 1 {
            // The first look at a run that has just begun: its first plain line comes a whole interval later.
            *last = now;
        }
        if inner.samples.back().is_none_or(|(_, before)| *before != rows) {
            inner.last_row_at = Some(now);
        }
        inner.samples.push_back((now, rows));
        while inner.samples.len() > 2 && inner.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= rate_over) {
            inner.samples.pop_front();
        }
        let trouble = inner.status.as_ref().and_then(|status| status.trouble());
        let reminded = inner
            .trouble_told
            .as_ref()
            .is_some_and(|(text, at)| trouble.as_ref().is_some_and(|trouble| trouble.text == *text) && at.elapsed() < REMIND_AFTER);
        match &trouble {
            Some(trouble) if !*LIVE && !reminded => {
                say(&format!("{}; {}", trouble.text, retrying(trouble.lasted)));
                inner.trouble_told = Some((trouble.text.clone(), now));
            }
            Some(trouble) if *LIVE => {
                inner.trouble_told = Some((trouble.text.clone(), now));
                console::rewrite(&format!("{}; {}", trouble.text, retrying(trouble.lasted)));
                return;
            }
            None if inner.trouble_told.take().is_some() => say("the broker answers again"),
            _ => {}
        }
        if !due || trouble.is_some() || inner.samples.len() <= 2 {
            return;
        }
        *last = now;
        let line = inner.line(&shared, rows, now);
        drop(inner);
        if *LIVE { console::rewrite(&line) } else { say(&line) }
    }

    /// What the run came to: how long it took, and how many rows it wrote if that is known.
    pub fn summary(&self, seconds: f64, rows_out: Option<u64>) {
        if self.quiet {
            return;
        }
        let inner = self.inner();
        let Some(shared) = &inner.shared else { return };
        let rows = shared.rows_in.load(Ordering::Relaxed);
        let mut parts = vec![format!("{} in", console::count(rows, "event"))];
        parts.extend(rows_out.map(|rows| format!("{} out", console::count(rows, "row"))));
        parts.push(format!("{} late", number(shared.late.load(Ordering::Relaxed))));
        parts.push(format!("{} dead", number(shared.dead.load(Ordering::Relaxed))));
        parts.push(format!("in {} ({}/s)", console::seconds(seconds), number((rows as f64 / seconds.max(0.001)) as u64)));
        let memory = peak_memory_bytes().map(|peak| format!("; peak memory {}", console::bytes(peak))).unwrap_or_default();
        say(&format!("{}{memory}", parts.join(", ")));
    }

    /// Which start this is, once an epoch has been committed.
    pub fn incarnation(&self) -> Option<String> {
        self.inner().incarnation.clone()
    }

    /// What ails the broker, if anything.
    pub fn trouble(&self) -> Option<String> {
        self.inner().status.as_ref().and_then(|status| status.trouble()).map(|trouble| trouble.text)
    }
}

impl Inner {
    fn line(&self, shared: &Shared, rows: u64, now: Instant) -> String {
        let rate = match (self.samples.front(), self.samples.back()) {
            (Some((from, before)), Some((to, after))) if to > from => {
                (after.saturating_sub(*before)) as f64 / to.duration_since(*from).as_secs_f64()
            }
            _ => 0.0,
        };
        let mut parts = vec![format!("{}/s", number(rate as u64)), console::count(rows, "event")];
        let lag = self.lag.as_ref().and_then(Lag::rows);
        if let Some(lag) = lag {
            parts.push(format!("lag {}", number(lag)));
        }
        parts.push(watermark(shared.watermark.load(Ordering::Relaxed)));
        let age = self.epoch_at.map(|at| format!(" ({} ago)", console::seconds(now.duration_since(at).as_secs_f64()))).unwrap_or_default();
        parts.push(format!("epoch {}{age}", self.epoch));
        let state: u64 = shared.state_bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum();
        parts.push(format!("state {}", console::bytes(state)));
        parts.push(format!("late {}", number(shared.late.load(Ordering::Relaxed))));
        parts.push(format!("dead {}", number(shared.dead.load(Ordering::Relaxed))));
        if shared.paused.load(Ordering::Relaxed) {
            parts.push("reading waits: what goes out to sinks is behind".to_owned());
        }
        let idle = lag.is_none_or(|lag| lag == 0) && self.last_row_at.is_some_and(|at| now.duration_since(at) >= IDLE_AFTER);
        if idle && state > 0 {
            parts.push(match open_after(shared.watermark.load(Ordering::Relaxed)) {
                Some(at) => format!("idle: windows that end after {at} wait for newer events"),
                None => "idle: windows wait for newer events".to_owned(),
            });
        }
        parts.join("  ")
    }
}

impl Watch for Progress {
    fn waiting(&self, what: &str) {
        let first = !std::mem::replace(&mut self.inner().waited, true);
        // A run that can't begin is an error in the making: even a quiet one says so, once.
        if self.quiet && !first {
            return;
        }
        say(&format!("{what}; {}", if first { "waiting for it, a minute at most" } else { "still waiting" }));
    }

    fn notice(&self, what: &str) {
        if !self.quiet {
            say(what);
        }
    }

    fn started(&self, shared: &Arc<Shared>, connections: &Connections) {
        let lag = if self.quiet { None } else { Lag::watch(&self.pipeline, connections) };
        let mut inner = self.inner();
        inner.shared = Some(Arc::clone(shared));
        inner.status = Some(Arc::clone(&connections.status));
        inner.lag = lag;
        inner.samples = VecDeque::from([(Instant::now(), 0)]);
        drop(inner);
        self.started.store(true, Ordering::Release);
    }

    fn epoch(&self, manifest: &Manifest) {
        let mut inner = self.inner();
        inner.epoch_at = Some(Instant::now());
        inner.epoch = manifest.epoch;
        inner.incarnation.get_or_insert_with(|| manifest.incarnation.clone());
        if let Some(lag) = &inner.lag {
            lag.epoch(manifest);
        }
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.progress.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It only shows; what it could not show is lost on nobody.
            let _ = thread.join();
        }
        console::clear();
        // Its thread asks the broker, which may be gone by the time the rest is dropped.
        let lag = self.progress.inner().lag.take();
        drop(lag);
    }
}

/// For how long a broker has been in trouble.
fn retrying(lasted: Duration) -> String {
    match lasted.as_secs() {
        0 => "trying again".to_owned(),
        seconds => format!("trying again, for {seconds} s now"),
    }
}

/// How far event time is behind the clock; the time itself when it is about other days.
fn watermark(at: i64) -> String {
    if at <= i64::MIN + DAY_US {
        return "watermark none yet".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
    let delay = now.saturating_sub(at);
    if (0..DAY_US).contains(&delay) {
        return format!("watermark {} behind", console::seconds(delay as f64 / 1e6));
    }
    format!("watermark {}", open_after(at).unwrap_or_else(|| "before all time".to_owned()))
}

/// The watermark as a time to the second.
fn open_after(at: i64) -> Option<String> {
    let shown = chrono::DateTime::from_timestamp_micros(at)?;
    (shown.timestamp() > -62_135_596_800).then(|| shown.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// The most memory this process has held.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watermark_is_a_delay_or_a_time() {
        assert_eq!(watermark(i64::MIN), "watermark none yet");
        assert_eq!(watermark(1_767_225_600_000_000 - 400 * DAY_US), "watermark 2024-11-27 00:00:00");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        assert!(watermark(now - 5_000_000).ends_with("s behind"), "{}", watermark(now - 5_000_000));
    }
}

//! `tidemill demo [CASE]`: a broker inside the process (or one that is named), made-up events, the case's pipeline, its questions answered.
//!
//! Always: nothing is left behind unless `--keep` or `--data` says so; the pipeline and the questions are the ones in `pipelines/`. The run
//! has two parts, because a live run leaves the windows open that newer events might still enter: one while the events come, stopped as by
//! Ctrl-C, then a bounded one that publishes what is open.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidemill_connectors::generator;
use tidemill_connectors::kafka::{Admin, MockBroker, WAIT_MS};
use tidemill_engine::error::{Error, Result};
use tidemill_engine::worker::Shared;
use tidemill_pipelines::cases::{self, CASES};
use tidemill_pipelines::runner::{self, Options, Pipeline, Watch};
use tidemill_pipelines::sql::Connector;

use crate::answers::{self, Asking};
use crate::cli::{Common, DemoArgs};
use crate::console::{self, count, say};
use crate::demo_answers;
use crate::demo_feed::{Feed, Room};
use crate::describe;
use crate::exit::{self, Outcome, refused};
use crate::generate;
use crate::progress::Progress;
use crate::run;
use crate::signals;

/// Partitions of the demo's topics.
const PARTITIONS: u32 = 4;
/// Memory of a question.
const ASK_BYTES_MAX: usize = 1 << 30;
/// Whether all has been read is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub fn demo(args: &DemoArgs, common: &Common) -> Outcome {
    if args.list {
        let rows: Vec<[String; 3]> = CASES.iter().map(|case| [case.name, case.family, case.summary].map(str::to_owned)).collect();
        return Ok(describe::show(["case", "family", "about"], &rows)?);
    }
    let case = cases::find(&args.case).ok_or_else(|| {
        let known: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        refused(format!("there is no case {}; there is {}", args.case, known.join(", ")))
    })?;
    let workload = generate::find(case.name)?;
    let mut pipeline = Pipeline::parse(&case.file(), case.pipeline_sql)?;
    let folder = Folder::choose(args, common, pipeline.name())?;
    let broker = Broker::open(workload, &mut pipeline, common)?;
    let pipeline = Arc::new(pipeline);
    if !common.quiet {
        say(&format!("case {}: {}", case.name, case.summary));
        say(&format!("  {} made up with seed {}, sent to {}", count(args.events, "event"), args.seed, broker.said()));
        say(&format!(
            "  pipeline {} ({}) writes {} tables to {}",
            pipeline.name(),
            case.file(),
            pipeline.program.outputs.len(),
            folder.path.join(pipeline.name()).join("tables").display()
        ));
    }
    let live =
        Live { pipeline: &pipeline, common, folder: &folder.path, broker: &broker, cancelled: Arc::default(), current: Arc::default() };
    live.stop_at_signal()?;
    let feed = Feed { topics: broker.topics.clone(), events: args.events, seed: args.seed, partitions: PARTITIONS, case: workload };
    if !live.run(feed)? {
        return Ok(());
    }
    let asking = Asking::open(&folder.path, ASK_BYTES_MAX, None, common.workers())?;
    demo_answers::questions(&asking, case.questions_sql)?;
    let balanced = demo_answers::accounting(&asking, pipeline.name())?;
    if !common.quiet {
        farewell(&folder, &broker, case);
    }
    match balanced {
        true => Ok(()),
        false => {
            Err(Error::failed("the accounting does not balance: a record got lost or counted twice; this is a bug in Tidemill").into())
        }
    }
}

fn farewell(folder: &Folder, broker: &Broker, case: &cases::Case) {
    say("try next:");
    if folder.kept {
        say(&format!("  tidemill sql --data {}", folder.path.display()));
        say("      ask the tables more; they are kept there");
    } else {
        say("  tidemill demo --keep");
        say("      keep the tables, and ask them more");
    }
    say(&format!("  tidemill generate {} --brokers HOST:PORT", case.name));
    say(&format!("  tidemill run {} --brokers HOST:PORT", case.file()));
    say("      the same through your own Kafka, with the repository's files");
    if broker.inside.is_none() {
        say(&format!(
            "the topics stay on the broker: {}",
            broker.topics.iter().map(|(_, made)| made.as_str()).collect::<Vec<_>>().join(", ")
        ));
    }
}

/// Where the demo's tables lie.
struct Folder {
    path: PathBuf,
    kept: bool,
}

impl Folder {
    fn choose(args: &DemoArgs, common: &Common, name: &str) -> Outcome<Self> {
        if common.data.as_ref().is_some_and(|data| !data.as_os_str().is_empty()) {
            let path = common.data();
            if path.join(name).exists() {
                return Err(refused(format!(
                    "{} holds a pipeline {name} already; a demo begins afresh: name another folder with --data, or none",
                    path.display()
                )));
            }
            return Ok(Self { path, kept: true });
        }
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        let path = std::env::temp_dir().join(format!("tidemill-demo-{}-{nanos:08x}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
        if !args.keep {
            exit::remove_at_exit(&path);
        }
        Ok(Self { path, kept: args.keep })
    }
}

/// The broker of a demo and the topics made on it.
struct Broker {
    inside: Option<MockBroker>,
    address: String,
    /// The case's name of a topic, and the one that was made.
    topics: Vec<(&'static str, String)>,
}

impl Broker {
    /// Starts one, or makes fresh topics on the one that is named and has the pipeline read those.
    fn open(case: &generator::Case, pipeline: &mut Pipeline, common: &Common) -> Outcome<Self> {
        let Some(address) = common.brokers() else {
            let broker = MockBroker::start()?;
            for topic in case.topics {
                broker.create_topic(topic, PARTITIONS as i32)?;
            }
            let topics = case.topics.iter().map(|topic| (*topic, (*topic).to_owned())).collect();
            return Ok(Self { address: broker.address().to_owned(), inside: Some(broker), topics });
        };
        let admin = Admin::new(&address, &common.kafka, WAIT_MS)?;
        let mut waiting = |what: &str| say(&format!("{what}; waiting for it, a minute at most"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let mut topics = Vec::new();
        for topic in case.topics {
            let fresh = format!("{topic}.demo-{now}");
            admin.create_topic(&fresh, PARTITIONS as i32, &[("retention.ms", "-1")], &mut waiting)?;
            topics.push((*topic, fresh));
        }
        for source in &mut pipeline.program.sources {
            if let Connector::Kafka { topic, .. } = &mut source.options.connector
                && let Some((_, fresh)) = topics.iter().find(|(name, _)| name == topic)
            {
                topic.clone_from(fresh);
            }
        }
        Ok(Self { inside: None, address, topics })
    }

    fn said(&self) -> String {
        let topics: Vec<&str> = self.topics.iter().map(|(_, made)| made.as_str()).collect();
        match &self.inside {
            Some(_) => format!("topic {} of a broker inside this process", topics.join(", ")),
            None => format!("topic {} at {}", topics.join(", "), self.address),
        }
    }
}

/// The two runs.
struct Live<'a> {
    pipeline: &'a Arc<Pipeline>,
    common: &'a Common,
    folder: &'a Path,
    broker: &'a Broker,
    cancelled: Arc<AtomicBool>,
    /// The flags of the run that goes on now.
    current: Arc<Mutex<Option<Arc<Shared>>>>,
}

impl Live<'_> {
    fn stop_at_signal(&self) -> Result<()> {
        let (cancelled, current, quiet) = (Arc::clone(&self.cancelled), Arc::clone(&self.current), self.common.quiet);
        signals::on_stop(move || {
            cancelled.store(true, Ordering::Release);
            match current.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                Some(shared) => {
                    shared.stop.store(true, Ordering::Release);
                    if !quiet {
                        say("stopping: the epoch is being finished (once more to leave at once)");
                    }
                }
                None => exit::leave(0),
            }
        })
    }

    /// Whether it came to its end; false when the user wanted no more.
    fn run(&self, feed: Feed) -> Outcome<bool> {
        let begun = Instant::now();
        let shared = self.begin();
        let progress = Progress::new(self.pipeline, self.common.quiet);
        let room = self.broker.inside.as_ref().map(|_| Room::new(Arc::clone(&shared)));
        let ended: Arc<AtomicBool> = Arc::default();
        let feeder = self.feed(feed, room, &shared, &ended)?;
        let showing = progress.show();
        let first = self.pipeline_run(false, &shared, &progress);
        let trouble = progress.trouble();
        drop(showing);
        ended.store(true, Ordering::Release);
        let fed =
            feeder.join().unwrap_or_else(|_| Err(Error::failed("the thread that sends events broke down; this is a bug in Tidemill")));
        if let (Err(_), Some(trouble), Some(_)) = (&first, &trouble, &self.broker.inside) {
            say(&format!("the broker inside this process: {trouble}; fewer --events, or a real Kafka by --brokers, may help"));
        }
        first?;
        fed?;
        let seconds = begun.elapsed().as_secs_f64();
        if self.cancelled.load(Ordering::Acquire) {
            return Ok(false);
        }
        let shared = self.begin();
        if !self.common.quiet {
            say("all events are in; now a bounded run of the same pipeline (run --bounded), which publishes the windows still open");
        }
        self.pipeline_run(true, &shared, &Progress::new(self.pipeline, true))?;
        progress.summary(seconds, run::rows_out(self.folder, self.pipeline.name(), None));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(!self.cancelled.load(Ordering::Acquire))
    }

    fn begin(&self) -> Arc<Shared> {
        let shared = Arc::new(Shared::new(self.common.workers()));
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&shared));
        shared
    }

    fn pipeline_run(&self, bounded: bool, shared: &Arc<Shared>, progress: &Arc<Progress>) -> Result<()> {
        let options: Options = run::options(self.common, self.folder, Some(self.broker.address.clone()), bounded);
        let watch: Arc<dyn Watch> = Arc::clone(progress) as Arc<dyn Watch>;
        runner::run(self.pipeline, &options, shared, &watch).map(|_| ())
    }

    /// Sends the events on a thread of their own, then stops the run once it has read them all.
    fn feed(&self, feed: Feed, room: Option<Room>, shared: &Arc<Shared>, ended: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
        let (address, properties) = (self.broker.address.clone(), self.common.kafka.clone());
        let (shared, ended) = (Arc::clone(shared), Arc::clone(ended));
        let send = move || {
            let over = || ended.load(Ordering::Acquire) || shared.stop.load(Ordering::Acquire) || shared.failed.load(Ordering::Acquire);
            let sent = feed.send(&address, &properties, room, &over);
            let events = match &sent {
                Ok(events) => *events,
                Err(_) => 0,
            };
            while !over() && shared.rows_in.load(Ordering::Acquire) < events {
                thread::sleep(LOOK_EVERY);
            }
            shared.stop.store(true, Ordering::Release);
            sent.map(|_| ())
        };
        thread::Builder::new().name("events".to_owned()).spawn(send).map_err(Error::from)
    }
}

/// A heading among the answers.
pub fn heading(text: &str) -> Result<()> {
    answers::line(&format!("\n{}", console::paint("1", text, console::stdout_colours())))
}

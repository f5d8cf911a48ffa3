//! The planner's way out to the connectors: the declared sinks of a program become what the engine delivers to.
//!
//! Always: every INSERT has one target; topics on the same brokers with the same properties are one, so that an epoch is one transaction
//! over all of them. What can be asked of a sink is asked before anything is written: a topic that is not there is named at once.

use std::sync::Arc;

use tidemill_connectors::kafka::{Admin, KafkaSink, KafkaStatus, WAIT_MS};
use tidemill_connectors::sink::{Blackhole, FileSink, SinkSpec, Sinks, Target};
use tidemill_engine::epoch::delivery::Deliver;
use tidemill_engine::error::{Error, Result};

use crate::sources::Connections;
use crate::sql::{Output, Program, Sink, SinkConnector};

/// Topics that share their transactions.
struct Together {
    brokers: String,
    properties: Vec<(String, String)>,
    topics: Vec<(String, SinkSpec)>,
}

/// What a program's INSERTs are delivered by; `None` if it has none. Waits for topics that are not there.
pub fn open(program: &Program, connections: &Connections, on_wait: &mut dyn FnMut(&str)) -> Result<Option<Box<dyn Deliver>>> {
    let mut targets: Vec<Box<dyn Target>> = Vec::new();
    let mut together: Vec<Together> = Vec::new();
    for output in &program.outputs {
        let Some(sink) = program.sink_of(output) else { continue };
        let spec = spec(sink, output);
        match &sink.connector {
            SinkConnector::File { path, parquet } => targets.push(Box::new(FileSink::new(path, *parquet, spec))),
            SinkConnector::Blackhole => targets.push(Box::new(Blackhole::new(spec.output))),
            SinkConnector::Kafka { topic, brokers, properties, .. } => {
                let brokers = brokers.clone().or_else(|| connections.brokers.clone());
                let brokers = brokers.ok_or_else(|| {
                    Error::refused(format!("sink {} writes to Kafka, but no broker is named: give --brokers HOST:PORT", sink.name))
                })?;
                let properties: Vec<_> = connections.properties.iter().chain(properties).cloned().collect();
                let same = together.iter_mut().find(|each| each.brokers == brokers && each.properties == properties);
                match same {
                    Some(same) => same.topics.push((topic.clone(), spec)),
                    None => together.push(Together { brokers, properties, topics: vec![(topic.clone(), spec)] }),
                }
            }
        }
    }
    for Together { brokers, properties, topics } in together {
        let admin = Admin::new(&brokers, &properties, WAIT_MS)?;
        for (topic, _) in &topics {
            look_for(&admin, &brokers, topic, on_wait)?;
        }
        // Sources on the same brokers show their health.
        let status =
            if connections.brokers.as_ref() == Some(&brokers) { Arc::clone(&connections.status) } else { KafkaStatus::new(&brokers) };
        targets.push(Box::new(KafkaSink::new(brokers, properties, topics, status)));
    }
    Ok(if targets.is_empty() { None } else { Some(Box::new(Sinks::new(targets))) })
}

/// Lets a pipeline that begins anew send everything again. Files of another life are the user's to move away.
pub fn forget_delivered(program: &Program, connections: &Connections, on_wait: &mut dyn FnMut(&str)) -> Result<()> {
    for sink in &program.sinks {
        if let SinkConnector::Kafka { brokers, properties, .. } = &sink.connector
            && let Some(brokers) = brokers.as_ref().or(connections.brokers.as_ref())
        {
            let properties: Vec<_> = connections.properties.iter().chain(properties).cloned().collect();
            tidemill_connectors::kafka::forget_delivered(brokers, &properties, &connections.pipeline, on_wait)?;
        }
    }
    Ok(())
}

/// Waits for a topic, and says how to make it.
fn look_for(admin: &Admin, brokers: &str, topic: &str, on_wait: &mut dyn FnMut(&str)) -> Result<()> {
    let command = format!("make it with kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions 4");
    let helped = |text: &str| if text.contains("does not exist") { format!("{text}; {command}") } else { text.to_owned() };
    match admin.topic(topic, &mut |text| on_wait(&helped(text))) {
        Ok(_) => Ok(()),
        Err(error) if error.message().contains("does not exist") => Err(Error::external(helped(error.message()))),
        Err(error) => Err(error),
    }
}

fn spec(sink: &Sink, output: &Output) -> SinkSpec {
    let place = |key: &String| sink.columns.iter().position(|column| column.name == *key);
    SinkSpec {
        output: output.name.clone(),
        names: sink.columns.iter().map(|column| column.spelled.clone()).collect(),
        key: sink.primary_key.iter().filter_map(place).collect(),
        key_as_json: matches!(sink.connector, SinkConnector::Kafka { key_as_json: true, .. }),
    }
}

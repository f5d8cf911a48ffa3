//! Tidemill's engine: contracts and the loop. Events, ticks, workers, time, state tables, epochs, accounting, simulation.
//!
//! Nothing here knows SQL, Kafka or Delta; clocks, threads and files are touched in the modules that say so and nowhere else.

pub mod account;
pub mod epoch;
pub mod error;
pub mod graph;
pub mod hash;
pub mod letter;
pub mod operator;
pub mod rows;
pub mod run;
pub mod sim;
pub mod source;
pub mod state;
pub mod time;
pub mod worker;

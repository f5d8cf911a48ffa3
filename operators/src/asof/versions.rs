//! The versions of one key, in the order of time.
//!
//! Always: the newest version that the watermark has passed stays, since rows to come may meet it; one that deletes does not, since no
//! version says the same.

use std::collections::BTreeMap;
use std::ops::Bound;

use tidemill_engine::rows::SourceId;
use tidemill_engine::time::Micros;

use super::Row;

/// Where a version stands: by time, then by its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub time: Micros,
    pub partition: i32,
    pub offset: i64,
    pub source: SourceId,
}

/// A version's columns (`None`: there is nothing from here on), and its tokens that no result has taken.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub row: Option<Row>,
    pub waits: i64,
}

/// See the module doc.
#[derive(Debug, Default)]
pub(super) struct Versions(BTreeMap<Place, Version>);

impl Versions {
    pub fn insert(&mut self, place: Place, version: Version) {
        self.0.insert(place, version);
    }

    pub fn get(&self, place: &Place) -> Option<&Version> {
        self.0.get(place)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.0.keys().copied()
    }

    /// The version valid at `time`, which of two at one time is the one of the greater place.
    pub fn at(&mut self, time: Micros, strict: bool) -> Option<(Place, &mut Version)> {
        let end = match time.checked_add(1) {
            _ if strict => Bound::Excluded(first(time)),
            Some(next) => Bound::Excluded(first(next)),
            None => Bound::Unbounded,
        };
        self.0.range_mut((Bound::Unbounded, end)).next_back().map(|(place, version)| (*place, version))
    }

    /// Takes out the versions before `watermark` but the newest of them, and that one too if it deletes.
    pub fn prune(&mut self, watermark: Micros) -> Vec<(Place, Version)> {
        let mut passed: Vec<Place> = self.0.range(..first(watermark)).map(|(place, _)| *place).collect();
        if passed.last().and_then(|newest| self.0.get(newest)).is_some_and(|newest| newest.row.is_some()) {
            passed.pop();
        }
        passed.into_iter().filter_map(|place| self.0.remove(&place).map(|version| (place, version))).collect()
    }
}

/// Before every version at `time`.
fn first(time: Micros) -> Place {
    Place { time, partition: i32::MIN, offset: i64::MIN, source: 0 }
}

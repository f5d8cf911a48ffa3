//! Window arithmetic: which windows a time belongs to, where they begin and end, which of them a watermark has closed.
//!
//! Always: window `k` is `[offset + k * slide, offset + k * slide + size)`, so windows are aligned to 1970-01-01T00:00Z and earlier
//! times floor. A tumble is a hop whose slide is its size. Times at the ends of the range saturate instead of wrapping.

use tidemill_engine::error::{Error, Result};
use tidemill_engine::time::{BEGINNING, Micros};

/// Before every window: none has been closed.
pub const NO_WINDOW: i64 = i64::MIN;

/// Fixed windows of an output, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    size: Micros,
    slide: Micros,
    offset: Micros,
}

impl Windows {
    /// Windows of `size`, a new one every `slide`, shifted by `offset`.
    pub fn hop(slide: Micros, size: Micros, offset: Micros) -> Result<Self> {
        const LIMIT: Micros = 1 << 60;
        if size <= 0 || slide <= 0 || size > LIMIT || slide > LIMIT {
            return Err(Error::refused("a window's size and slide must be longer than zero"));
        }
        Ok(Self { size, slide, offset: offset.rem_euclid(slide) })
    }

    /// Windows of `size` that follow each other.
    pub fn tumble(size: Micros, offset: Micros) -> Result<Self> {
        Self::hop(size, size, offset)
    }

    /// Every time belongs to exactly one window.
    pub fn is_tumble(&self) -> bool {
        self.size == self.slide
    }

    /// The most windows that one time belongs to.
    pub fn per_row(&self) -> i64 {
        (self.size + self.slide - 1) / self.slide
    }

    /// Where window `k` begins.
    pub fn start(&self, k: i64) -> Micros {
        k.saturating_mul(self.slide).saturating_add(self.offset)
    }

    /// Where window `k` ends; the end is not part of it.
    pub fn end(&self, k: i64) -> Micros {
        self.start(k).saturating_add(self.size)
    }

    /// The first and the last window that `time` belongs to, and the range of times that share this answer. `None` for the windows
    /// when `time` falls into a gap (slide > size).
    pub fn covering(&self, time: Micros) -> Covering {
        // Beyond +-73,000 years arithmetic could wrap; such times share the outermost windows.
        let time = time.clamp(-(1 << 61), 1 << 61);
        let last = (time - self.offset).div_euclid(self.slide);
        let first = (time - self.offset - self.size).div_euclid(self.slide) + 1;
        let from = self.start(last).max(self.end(first - 1));
        let to = self.start(last + 1).min(self.end(first));
        if first > last {
            Covering { windows: None, from: self.end(last), to: self.start(first) }
        } else {
            Covering { windows: Some((first, last)), from, to }
        }
    }

    /// The last window that ends at or before `watermark`.
    pub fn closed_by(&self, watermark: Micros) -> i64 {
        if watermark == BEGINNING {
            return NO_WINDOW;
        }
        let closed = (i128::from(watermark) - i128::from(self.offset) - i128::from(self.size)).div_euclid(i128::from(self.slide));
        i64::try_from(closed).unwrap_or(NO_WINDOW)
    }
}

/// The windows of a time, and the times `[from, to)` around it that have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covering {
    /// First and last window.
    pub windows: Option<(i64, i64)>,
    /// The least such time.
    pub from: Micros,
    /// The first time after them.
    pub to: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_agree_with_their_definition() {
        for (slide, size, offset) in [(10, 10, 0), (10, 10, 3), (2, 10, 0), (3, 10, 1), (7, 3, 0), (5, 4, -3)] {
            let windows = Windows::hop(slide, size, offset).expect("windows");
            for time in -60..60 {
                let covering: Vec<i64> = (-80..80).filter(|k| windows.start(*k) <= time && time < windows.end(*k)).collect();
                let expected = covering.first().copied().zip(covering.last().copied());
                let found = windows.covering(time);
                assert_eq!(found.windows, expected, "{slide} {size} {offset} {time}");
                assert!(found.from <= time && time < found.to, "{slide} {size} {offset} {time} {found:?}");
                for same in found.from..found.to {
                    assert_eq!(windows.covering(same).windows, expected);
                }
                let closed = (-80..80).rfind(|k| windows.end(*k) <= time).expect("one");
                assert_eq!(windows.closed_by(time), closed);
                assert!(covering.len() as i64 <= windows.per_row());
            }
        }
    }

    #[test]
    fn the_ends_of_time_do_not_wrap() {
        let windows = Windows::hop(1, 1 << 40, 0).expect("windows");
        for time in [i64::MIN, i64::MIN + 1, i64::MAX] {
            assert!(windows.covering(time).windows.is_some());
            let _ = windows.closed_by(time);
        }
        assert_eq!(windows.closed_by(BEGINNING), NO_WINDOW);
    }
}

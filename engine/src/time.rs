//! Event time, watermarks and the sealed clock, as numbers: microseconds since 1970-01-01T00:00Z.
//!
//! Always: a watermark never goes back. `None` is "no word yet": an input whose partitions are all idle, or none here.
//! The rules are CONTRACT §3's: a partition's watermark at an offset is the greatest watermark value of the rows before it.

/// Microseconds of event time or of sealed clock.
pub type Micros = i64;

/// Before every row: nothing has been promised.
pub const BEGINNING: Micros = i64::MIN;

/// What one worker knows of an input's watermark after a tick.
pub type Watermark = Option<Micros>;

/// The least of two watermarks, where one without word holds nothing back.
pub fn least(left: Watermark, right: Watermark) -> Watermark {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.min(right)),
        (one, None) | (None, one) => one,
    }
}

/// `a - b`, held at the ends of the range instead of wrapping.
pub fn minus(a: Micros, b: Micros) -> Micros {
    if a == BEGINNING { BEGINNING } else { a.saturating_sub(b) }
}

/// Is a window that ends at `end` closed to a row judged by `watermark`? CONTRACT §3: late iff `end + lateness <= watermark`.
pub fn is_late(end: Micros, lateness: Micros, watermark: Micros) -> bool {
    watermark != BEGINNING && end.saturating_add(lateness) <= watermark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_holds_nothing_back() {
        assert_eq!(least(None, Some(3)), Some(3));
        assert_eq!(least(Some(1), Some(3)), Some(1));
        assert_eq!(least(None, None), None);
    }

    #[test]
    fn lateness_is_inclusive_and_never_before_the_first_watermark() {
        assert!(is_late(10, 5, 15) && !is_late(10, 5, 14));
        assert!(!is_late(i64::MIN, 0, BEGINNING));
    }
}

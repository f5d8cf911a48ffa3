//! ISO dates and RFC 3339 times, as days and microseconds since 1970-01-01T00:00:00Z.
//!
//! Always exact: a digit that the column can't hold makes the text no time. The calendar is the proleptic Gregorian one, years 0001
//! to 9999, no leap seconds, no 24:00. Numbers become times in `walk`. Called by `walk`.

use super::scan::{at, digits8, load8, number8};

const HIGH: u64 = 0x8080_8080_8080_8080;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// The date read last: records of a stream share theirs.
#[derive(Debug)]
pub(super) struct LastDate {
    head: u64,
    tail: u16,
    days: i32,
}

impl Default for LastDate {
    /// A true date: zeros would be matched by a text of ten NULs.
    fn default() -> Self {
        Self { head: u64::from_le_bytes(*b"1970-01-"), tail: u16::from_le_bytes(*b"01"), days: 0 }
    }
}

/// Reads `yyyy-mm-dd`.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    let (head, tail) = halves(text)?;
    if text.len() == 10 { days(head, tail) } else { None }
}

#[inline(always)]
fn halves(text: &[u8]) -> Option<(u64, u16)> {
    let head = u64::from_le_bytes(*text.first_chunk()?);
    Some((head, u16::from_le_bytes([*text.get(8)?, *text.get(9)?])))
}

/// Checks eight bytes against a pattern in which `0` stands for a digit and `digit_room` is 0x76 in those bytes and 0x7f in the others:
/// the digits' values, every other byte 0.
#[inline(always)]
fn pattern(word: u64, pattern: u64, digit_room: u64) -> Option<u64> {
    let x = word ^ pattern;
    // A byte that passes is under 0x0a (a digit) or 0 (a separator), so nothing carries unless something fails.
    ((x.wrapping_add(digit_room) | x) & HIGH == 0).then_some(x)
}

/// Two digits in each pair of neighbouring bytes: the first byte of the pair becomes their number.
#[inline(always)]
fn pairs(digits: u64) -> u64 {
    digits.wrapping_mul(10).wrapping_add(digits >> 8)
}

#[inline(always)]
fn byte(word: u64, place: u32) -> u32 {
    (word >> (8 * place)) as u32 & 0xff
}

fn days(head: u64, tail: u16) -> Option<i32> {
    let digits = pattern(head, u64::from_le_bytes(*b"0000-00-"), 0x7f76_767f_7676_7676)?;
    let two = pairs(digits);
    let (year, month) = (byte(two, 0) * 100 + byte(two, 2), byte(two, 5));
    let [tens, ones] = tail.to_le_bytes().map(|b| u32::from(b.wrapping_sub(b'0')));
    let day = tens * 10 + ones;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if tens > 9 || ones > 9 || year == 0 || day == 0 || day > length {
        return None;
    }
    // Days since 0000-03-01 with the year starting in March, so that the leap day is its last; 719468 of them lie before 1970.
    let from_march = (month + 9) % 12;
    let year = year - u32::from(month < 3);
    let count = year * 365 + year / 4 - year / 100 + year / 400 + (from_march * 306 + 5) / 10 + day - 1;
    Some(count.cast_signed() - 719_468)
}

/// Reads a whole RFC 3339 time whose digits after the `places`-th (0 to 6) of a second are zero.
#[inline]
pub(super) fn timestamp(text: &[u8], places: u32, last: &mut LastDate) -> Option<i64> {
    let (head, tail) = halves(text)?;
    let days = if head == last.head && tail == last.tail {
        last.days
    } else {
        let days = days(head, tail)?;
        *last = LastDate { head, tail, days };
        days
    };
    if !matches!(at(text, 10), b'T' | b't' | b' ') {
        return None;
    }
    let two = pairs(pattern(load8(text, 11), u64::from_le_bytes(*b"00:00:00"), 0x7676_7f76_767f_7676)?);
    let (hour, minute, second) = (byte(two, 0), byte(two, 3), byte(two, 6));
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (micros, zone) = if at(text, 19) == b'.' { fraction(text, places)? } else { (0, 19) };
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    let local = i64::from(days) * MICROS_PER_DAY + seconds * 1_000_000 + micros;
    match at(text, zone) {
        b'Z' | b'z' if text.len() == zone + 1 => Some(local),
        b'+' | b'-' => Some(local - offset(text, zone)?),
        _ => None,
    }
}

/// The microseconds after the point at 19, and what follows their digits.
#[inline(always)]
fn fraction(text: &[u8], places: u32) -> Option<(i64, usize)> {
    const UNIT: [i64; 7] = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1];
    let word = load8(text, 20);
    let count = digits8(word);
    if count == 0 {
        return None;
    }
    let used = count.min(6);
    let micros = number8(word, used).cast_signed() * UNIT.get(used as usize).copied()?;
    if places < 6 && micros % UNIT.get(places as usize).copied()? != 0 {
        return None;
    }
    let mut end = 20 + used as usize;
    while at(text, end) == b'0' {
        end += 1;
    }
    Some((micros, end))
}

/// The microseconds that `+hh:mm` or `-hh:mm` at `zone`, the last thing in the text, is ahead of UTC.
#[cold]
fn offset(text: &[u8], zone: usize) -> Option<i64> {
    let [sign, h1, h2, b':', m1, m2] = *text.get(zone..)? else { return None };
    let two =
        |tens: u8, ones: u8| (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'));
    let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
    let ahead = (hours * 60 + minutes) * 60_000_000;
    (hours < 24 && minutes < 60).then_some(if sign == b'-' { -ahead } else { ahead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_the_calendar_once() {
        let mut expected = -719_162; // 0001-01-01
        for year in 0..=9999_u32 {
            for month in 0..=13_u32 {
                for day in 0..=32_u32 {
                    let got = date(format!("{year:04}-{month:02}-{day:02}").as_bytes());
                    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
                    let length = [0, 31, 28 + u32::from(leap), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0][month as usize];
                    if year >= 1 && day >= 1 && day <= length {
                        assert_eq!(got, Some(expected), "{year}-{month}-{day}");
                        expected += 1;
                    } else {
                        assert_eq!(got, None, "{year}-{month}-{day}");
                    }
                }
            }
        }
        assert_eq!(date(b"1970-01-01"), Some(0));
    }

    #[test]
    fn times() {
        let read = |text: &str, places| timestamp(text.as_bytes(), places, &mut LastDate::default());
        for (text, places, want) in [
            ("1970-01-01T00:00:00Z", 0, Some(0)),
            ("1970-01-01t00:00:01z", 0, Some(1_000_000)),
            ("1970-01-01 00:00:00.5Z", 3, Some(500_000)),
            ("1970-01-01T00:00:00.123456Z", 6, Some(123_456)),
            ("1970-01-01T00:00:00.123456Z", 3, None),
            ("1970-01-01T00:00:00.123000Z", 3, Some(123_000)),
            ("1970-01-01T00:00:00.1230000000000Z", 3, Some(123_000)),
            ("1970-01-01T00:00:00.1234567Z", 6, None),
            ("1970-01-01T00:00:00.12345600000000001Z", 6, None),
            ("1970-01-01T00:00:00.000Z", 0, Some(0)),
            ("1970-01-01T00:00:00.100Z", 0, None),
            ("1970-01-01T02:00:00+02:00", 0, Some(0)),
            ("1969-12-31T18:30:00-05:30", 0, Some(0)),
            ("1970-01-01T00:00:00-00:00", 0, Some(0)),
            ("1970-01-01T00:00:00+24:00", 0, None),
            ("1970-01-01T00:00:00+02:60", 0, None),
            ("1970-01-01T00:00:00+0200", 0, None),
            ("1970-01-01T00:00:00", 0, None),
            ("1970-01-01T00:00:00.Z", 0, None),
            ("1970-01-01T00:00:00ZZ", 0, None),
            ("1970-01-01T00:00:00 Z", 0, None),
            ("1970-01-01T24:00:00Z", 0, None),
            ("1970-01-01T23:59:60Z", 0, None),
            ("1970-01-01T23:60:00Z", 0, None),
            ("1970-01-01T00-00-00Z", 0, None),
            ("1970-02-30T00:00:00Z", 0, None),
            ("0001-01-01T00:00:00Z", 0, Some(-62_135_596_800_000_000)),
            ("9999-12-31T23:59:59.999999Z", 6, Some(253_402_300_799_999_999)),
            ("0000-01-01T00:00:00Z", 0, None),
            ("1970-01-01", 0, None),
            ("", 0, None),
        ] {
            assert_eq!(read(text, places), want, "{text}");
        }
    }
}

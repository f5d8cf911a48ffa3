//! One pass over a record: every byte checked, every column's value put in its slot.
//!
//! A slot holds the last value seen for its use, or why that value is bad; whether the record is good is decided once at its end, so
//! the last of a duplicate key counts by itself. Recursion follows the declared types only; values that nobody declared go through
//! `skip`. Whether a query reads a column is not known here. Called by the decoder, and by `columns` for the elements of lists.

use super::bad::{Bad, Fault, Reason, grammar, of_column, of_text};
use super::bets::{Bets, GLUE_BYTES_MAX, Place};
use super::plan::{Kind, Plan, Target, Use};
use super::scan::{at, load8, space, string, unescape};
use super::time::LastDate;
use super::{Options, TimeUnitOption, base64, number, skip, time};

/// What is known of a use's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum State {
    #[default]
    Missing,
    Null,
    Good,
    Bad,
}

/// The last value of a use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub state: State,
    /// The text between `start` and `end` has escapes.
    pub escaped: bool,
    reason: Reason,
    /// Text: what is between the quotes. List: what follows the `[`. Bad: the value, and in `end` the slot that can't take it.
    pub start: u32,
    pub end: u32,
    /// The whole number, the unscaled decimal, the float's bits, the days, the microseconds, or 1 for true.
    pub bits: i128,
    /// The state a good record reaches at least.
    pub least: State,
}

impl Slot {
    pub(super) const MISSING: Self =
        Self { state: State::Missing, escaped: false, reason: Reason::Missing, start: 0, end: 0, bits: 0, least: State::Missing };
}

/// Forgets what the slots hold.
#[inline(always)]
fn forget(slots: &mut [Slot]) {
    for slot in slots {
        slot.state = State::Missing;
    }
}

/// A record under way.
pub(super) struct Walk<'a> {
    pub bytes: &'a [u8],
    pub plan: &'a Plan,
    pub options: Options,
    pub slots: &'a mut [Slot],
    pub bets: &'a mut Bets,
    pub last_date: &'a mut LastDate,
    pub scratch: &'a mut Vec<u8>,
    /// The first field that no column names, where those are rejected.
    pub unknown: Option<usize>,
}

impl Walk<'_> {
    /// Checks the whole payload, which is UTF-8.
    #[inline]
    pub(super) fn record(&mut self) -> Result<(), Bad> {
        forget(self.slots);
        let bytes = self.bytes;
        let end = self.outermost().map_err(|fault| of_text(bytes, fault))?;
        let wrong = self.slots.iter().fold(false, |wrong, slot| wrong | (slot.state < slot.least) | (slot.state == State::Bad));
        if wrong || self.unknown.is_some() { Err(self.verdict(end)) } else { Ok(()) }
    }

    #[inline(always)]
    fn outermost(&mut self) -> Result<usize, Fault> {
        let start = space(self.bytes, 0);
        if at(self.bytes, start) != b'{' {
            return Err(self.no_object(start));
        }
        let end = self.object(0, start + 1, 1)?;
        if end == self.bytes.len() {
            return Ok(end);
        }
        let rest = space(self.bytes, end);
        if rest == self.bytes.len() { Ok(end) } else { Err(Fault { reason: Reason::TrailingBytes, offset: rest }) }
    }

    #[cold]
    fn no_object(&self, start: usize) -> Fault {
        if start == self.bytes.len() {
            return Fault { reason: Reason::Empty, offset: start };
        }
        match skip::value(self.bytes, start, 0, self.options.depth_max) {
            Err(fault) => fault,
            Ok(end) if space(self.bytes, end) < self.bytes.len() => grammar(self.bytes, space(self.bytes, end)),
            Ok(_) => Fault { reason: Reason::NotObject, offset: start },
        }
    }

    /// Why a record in good JSON is bad: the first column in declared order.
    #[cold]
    fn verdict(&self, end: usize) -> Bad {
        if let Some(offset) = self.unknown {
            return of_text(self.bytes, Fault { reason: Reason::UnknownField, offset });
        }
        let found = self.plan.columns.iter().find_map(|column| self.first_bad(*column, end));
        let (slot, fault) = found.unwrap_or((0, Fault { reason: Reason::Type, offset: 0 }));
        of_column(self.plan, slot, self.bytes, fault)
    }

    fn first_bad(&self, index: usize, end: usize) -> Option<(usize, Fault)> {
        let slot = self.slots.get(index)?;
        match slot.state {
            State::Bad => Some((slot.end as usize, Fault { reason: slot.reason, offset: slot.start as usize })),
            State::Missing | State::Null if slot.state < slot.least => {
                let fault = if slot.state == State::Missing {
                    Fault { reason: Reason::Missing, offset: end }
                } else {
                    Fault { reason: Reason::Null, offset: slot.start as usize }
                };
                Some((index, fault))
            }
            State::Good => self.plan.uses.get(index)?.parts.iter().find_map(|part| self.first_bad(*part, end)),
            _ => None,
        }
    }

    /// Reads the fields of the object of `node`, whose `{` is before `pos` and the `depth`-th open bracket; what follows its `}`.
    fn object(&mut self, node: usize, mut pos: usize, depth: usize) -> Result<usize, Fault> {
        let mut link = Bets::first(node);
        let mut place = Place::first(node);
        loop {
            let (target, mut start, next) = match self.bets.take(link, place, self.bytes, pos) {
                Some(won) => won,
                None => match self.field(place, link, pos)? {
                    Field::Value(target, start, next) => (target, start, next),
                    Field::End(end) => return Ok(end),
                },
            };
            if at(self.bytes, start) <= b' ' {
                start = space(self.bytes, start);
            }
            pos = self.value(target, start, depth)?;
            if at(self.bytes, pos) == b'}' {
                return Ok(pos + 1);
            }
            link = next;
            place = place.after_a_value();
        }
    }

    /// Reads the glue at `pos` by the grammar, and bets on it from now on.
    #[cold]
    #[inline(never)]
    fn field(&mut self, place: Place, link: usize, pos: usize) -> Result<Field, Fault> {
        let bytes = self.bytes;
        let mut quote = space(bytes, pos);
        match at(bytes, quote) {
            b'}' => return Ok(Field::End(quote + 1)),
            b',' if !place.is_first() => quote = space(bytes, quote + 1),
            _ if !place.is_first() => return Err(grammar(bytes, quote)),
            _ => {}
        }
        if at(bytes, quote) != b'"' {
            return Err(grammar(bytes, quote));
        }
        let (end, escaped) = string(bytes, quote + 1)?;
        let colon = space(bytes, end + 1);
        if at(bytes, colon) != b':' {
            return Err(grammar(bytes, colon));
        }
        let start = space(bytes, colon + 1);
        let glue = bytes.get(pos..start).unwrap_or_default();
        if glue.len() > GLUE_BYTES_MAX {
            return Ok(Field::Value(self.named(place, quote, end, escaped), start, link));
        }
        let (number, known) = self.bets.find(link, place, glue);
        if let Some(target) = known {
            return Ok(Field::Value(target, start, number));
        }
        let target = self.named(place, quote, end, escaped);
        // A rejected field ends its record: nothing is won by expecting it, and a won bet would not report it.
        if !(self.options.reject_unknown && matches!(target, Target::Skip)) {
            self.bets.learn(number, place, glue, target);
        }
        Ok(Field::Value(target, start, number))
    }

    /// What the key between the quotes at `quote` and `end` leads to.
    fn named(&mut self, place: Place, quote: usize, end: usize, escaped: bool) -> Target {
        let mut key = self.bytes.get(quote + 1..end).unwrap_or_default();
        if escaped {
            self.scratch.clear();
            unescape(key, self.scratch);
            key = self.scratch;
        }
        match self.plan.nodes.get(place.node()).and_then(|node| node.child(key)) {
            Some(child) => self.plan.target(child),
            None => {
                if self.options.reject_unknown {
                    self.unknown.get_or_insert(quote);
                }
                Target::Skip
            }
        }
    }

    #[inline(always)]
    fn value(&mut self, target: Target, pos: usize, depth: usize) -> Result<usize, Fault> {
        match target {
            Target::Skip => skip::value(self.bytes, pos, depth, self.options.depth_max),
            Target::Leaf(slot) => self.leaf(slot as usize, pos, depth),
            Target::Branch(node) => self.branch(node as usize, pos, depth),
        }
    }

    /// A value that several want, or that somebody looks into.
    #[inline(never)]
    fn branch(&mut self, node: usize, pos: usize, depth: usize) -> Result<usize, Fault> {
        let Some(place) = self.plan.nodes.get(node) else { return Err(grammar(self.bytes, pos)) };
        if let Some(below) = self.slots.get_mut(place.below.clone()) {
            forget(below);
        }
        if place.object && at(self.bytes, pos) == b'{' {
            if depth >= self.options.depth_max {
                return Err(Fault { reason: Reason::Depth, offset: pos });
            }
            for slot in place.uses.clone() {
                if self.plan.uses.get(slot).is_some_and(|one| one.kind == Kind::Struct) {
                    self.good(slot, 1);
                } else {
                    self.bad(slot, Reason::Type, pos);
                }
            }
            return self.object(node, pos + 1, depth + 1);
        }
        if place.uses.is_empty() {
            return skip::value(self.bytes, pos, depth, self.options.depth_max);
        }
        let mut end = pos;
        for slot in place.uses.clone() {
            end = self.leaf_any(slot, pos, depth)?;
        }
        Ok(end)
    }

    #[inline(always)]
    fn put(&mut self, slot: usize, value: Slot) {
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Slot { least: place.least, ..value };
        }
    }

    #[inline(always)]
    fn good(&mut self, slot: usize, bits: impl Into<i128>) {
        self.put(slot, Slot { state: State::Good, bits: bits.into(), ..Slot::MISSING });
    }

    #[inline(always)]
    fn text(&mut self, slot: usize, start: usize, end: usize, escaped: bool) {
        // A payload is shorter than 2^31 bytes.
        self.put(slot, Slot { state: State::Good, escaped, start: start as u32, end: end as u32, ..Slot::MISSING });
    }

    #[cold]
    fn bad(&mut self, slot: usize, reason: Reason, offset: usize) {
        self.put(slot, Slot { state: State::Bad, reason, start: offset as u32, end: slot as u32, ..Slot::MISSING });
    }

    /// A value that one use wants: the usual spellings, and the rest by [`Walk::leaf_any`].
    #[inline(always)]
    fn leaf(&mut self, slot: usize, pos: usize, depth: usize) -> Result<usize, Fault> {
        let bytes = self.bytes;
        let Some(Use { kind, .. }) = self.plan.uses.get(slot) else { return Err(grammar(bytes, pos)) };
        match *kind {
            Kind::Int64 => {
                if let Some((value, end)) = number::integer(bytes, pos) {
                    self.good(slot, value);
                    return Ok(end);
                }
            }
            Kind::Int32 | Kind::Int16 => {
                if let Some((value, end)) = number::integer(bytes, pos)
                    && in_range(*kind, value)
                {
                    self.good(slot, value);
                    return Ok(end);
                }
            }
            Kind::Decimal { precision, scale } => {
                if let Some((value, places, end)) = number::pointed(bytes, pos)
                    && let Some(shift) = scale.checked_sub(places)
                    && let (Some(factor), Some(limit)) = (number::pow10(shift as usize), number::pow10(precision as usize))
                    && let Some(scaled) = i128::from(value).checked_mul(factor)
                    && scaled.abs() < limit
                {
                    self.good(slot, scaled);
                    return Ok(end);
                }
            }
            Kind::Float64 => {
                if let Some((value, places, end)) = number::pointed(bytes, pos)
                    && let Some(float) = number::float64(value, places)
                {
                    self.good(slot, float.to_bits());
                    return Ok(end);
                }
            }
            Kind::Text => {
                if at(bytes, pos) == b'"' {
                    let (end, escaped) = string(bytes, pos + 1)?;
                    self.text(slot, pos + 1, end, escaped);
                    return Ok(end + 1);
                }
            }
            Kind::Timestamp { digits, unit } => {
                if at(bytes, pos) == b'"' {
                    let (end, escaped) = string(bytes, pos + 1)?;
                    if !escaped && let Some(micros) = time::timestamp(bytes.get(pos + 1..end).unwrap_or_default(), digits, self.last_date) {
                        self.good(slot, micros);
                        return Ok(end + 1);
                    }
                } else if let Some((count, end)) = number::integer(bytes, pos)
                    && let Some(micros) = micros(count, digits, unit)
                {
                    self.good(slot, micros);
                    return Ok(end);
                }
            }
            Kind::Bool => {
                let word = load8(bytes, pos);
                if word & 0xffff_ffff == u64::from(u32::from_le_bytes(*b"true")) {
                    self.good(slot, 1);
                    return Ok(pos + 4);
                }
                if word & 0xff_ffff_ffff == u64::from_le_bytes(*b"false\0\0\0") {
                    self.good(slot, 0);
                    return Ok(pos + 5);
                }
            }
            Kind::Float32 | Kind::Bytes | Kind::Date | Kind::Struct | Kind::List { .. } => {}
        }
        self.leaf_any(slot, pos, depth)
    }

    /// Any value that one use wants.
    #[inline(never)]
    fn leaf_any(&mut self, slot: usize, pos: usize, depth: usize) -> Result<usize, Fault> {
        let bytes = self.bytes;
        let Some(kind) = self.plan.uses.get(slot).map(|one| one.kind) else { return Err(grammar(bytes, pos)) };
        match at(bytes, pos) {
            b'n' => {
                let end = skip::literal(bytes, pos, b"null")?;
                self.put(slot, Slot { state: State::Null, start: pos as u32, ..Slot::MISSING });
                Ok(end)
            }
            b'"' => {
                let (end, escaped) = string(bytes, pos + 1)?;
                self.string_value(slot, kind, pos, end, escaped);
                Ok(end + 1)
            }
            b'-' | b'0'..=b'9' => {
                let (number, end) = number::parse(bytes, pos)?;
                match self.of_number(kind, &number) {
                    Ok(_) if kind == Kind::Text => self.text(slot, pos, end, false),
                    Ok(bits) => self.good(slot, bits),
                    Err(reason) => self.bad(slot, reason, pos),
                }
                Ok(end)
            }
            b'[' if let Kind::List { element } = kind => self.list(slot, element, pos, depth),
            byte => {
                let end = skip::value(bytes, pos, depth, self.options.depth_max)?;
                match kind {
                    Kind::Bool if byte == b't' || byte == b'f' => self.good(slot, i128::from(byte == b't')),
                    _ => self.bad(slot, Reason::Type, pos),
                }
                Ok(end)
            }
        }
    }

    /// The string between the quotes at `quote` and `end`.
    fn string_value(&mut self, slot: usize, kind: Kind, quote: usize, end: usize, escaped: bool) {
        let mut text = self.bytes.get(quote + 1..end).unwrap_or_default();
        if escaped {
            self.scratch.clear();
            unescape(text, self.scratch);
            text = self.scratch;
        }
        let coerced = if self.options.coerce { number::parse_all(text) } else { None };
        let bits = match kind {
            Kind::Text => Ok(0),
            Kind::Bytes if base64::decode(text, |_| {}) => Ok(0),
            Kind::Bytes => Err(Reason::Base64),
            Kind::Date => time::date(text).map(i128::from).ok_or(Reason::Date),
            Kind::Timestamp { digits, .. } => match time::timestamp(text, digits, self.last_date) {
                Some(micros) => Ok(i128::from(micros)),
                None => coerced.ok_or(Reason::Timestamp).and_then(|number| self.of_number(kind, &number)),
            },
            Kind::Decimal { .. } => number::parse_all(text).ok_or(Reason::Type).and_then(|number| self.of_number(kind, &number)),
            Kind::Bool if self.options.coerce && text == b"true" => Ok(1),
            Kind::Bool if self.options.coerce && text == b"false" => Ok(0),
            Kind::Bool | Kind::Struct | Kind::List { .. } => Err(Reason::Type),
            _ => coerced.ok_or(Reason::Type).and_then(|number| self.of_number(kind, &number)),
        };
        match bits {
            Ok(_) if matches!(kind, Kind::Text | Kind::Bytes) => self.text(slot, quote + 1, end, escaped),
            Ok(bits) => self.good(slot, bits),
            Err(reason) => self.bad(slot, reason, quote),
        }
    }

    /// The bits of a number in a column of `kind`.
    fn of_number(&self, kind: Kind, number: &number::Number<'_>) -> Result<i128, Reason> {
        let fits = match kind {
            Kind::Int64 => number.int64().map(i128::from),
            Kind::Int32 | Kind::Int16 => number.int64().filter(|value| in_range(kind, *value)).map(i128::from),
            Kind::Decimal { precision, scale } => number.scaled(precision, scale),
            Kind::Float64 => number.float64().map(|value| i128::from(value.to_bits())),
            Kind::Float32 => number.float32().map(|value| i128::from(value.to_bits())),
            Kind::Timestamp { digits, unit } => {
                return number.int64().and_then(|count| micros(count, digits, unit)).map(i128::from).ok_or(Reason::Timestamp);
            }
            Kind::Text if self.options.coerce => Some(0),
            _ => return Err(Reason::Type),
        };
        fits.ok_or(Reason::Range)
    }

    /// Checks the list whose `[` is at `pos`; its elements are read again when it is appended.
    fn list(&mut self, slot: usize, element: usize, pos: usize, depth: usize) -> Result<usize, Fault> {
        if depth >= self.options.depth_max {
            return Err(Fault { reason: Reason::Depth, offset: pos });
        }
        let Some(range) = self.plan.nodes.get(element).map(|node| node.uses.start..node.below.end) else {
            return Err(grammar(self.bytes, pos));
        };
        let mut first_bad: Option<Slot> = None;
        let end = self.elements(element, pos + 1, depth + 1, &mut |walk| {
            let inside = walk.slots.get(range.clone()).unwrap_or_default();
            first_bad = first_bad.or_else(|| inside.iter().find(|slot| slot.state == State::Bad).copied());
        })?;
        // Elements are judged here: at the end of the record their slots say nothing.
        if let Some(inside) = self.slots.get_mut(range) {
            forget(inside);
        }
        match first_bad {
            Some(bad) => self.put(slot, bad),
            None => {
                self.put(
                    slot,
                    Slot { state: State::Good, start: pos as u32 + 1, end: end as u32, bits: depth as i128 + 1, ..Slot::MISSING },
                );
            }
        }
        Ok(end)
    }

    /// Reads the elements of the list whose `[` is before `start`, calling `each` when one is in its slots; what follows the `]`.
    pub(super) fn elements(&mut self, element: usize, start: usize, depth: usize, each: &mut dyn FnMut(&mut Self)) -> Result<usize, Fault> {
        let target = self.plan.target(element);
        let mut pos = space(self.bytes, start);
        if at(self.bytes, pos) == b']' {
            return Ok(pos + 1);
        }
        loop {
            pos = self.value(target, space(self.bytes, pos), depth)?;
            each(self);
            pos = space(self.bytes, pos);
            match at(self.bytes, pos) {
                b',' => pos += 1,
                b']' => return Ok(pos + 1),
                _ => return Err(grammar(self.bytes, pos)),
            }
        }
    }
}

/// What a look for the next field finds.
enum Field {
    Value(Target, usize, usize),
    End(usize),
}

#[inline(always)]
fn in_range(kind: Kind, value: i64) -> bool {
    match kind {
        Kind::Int16 => i16::try_from(value).is_ok(),
        Kind::Int32 => i32::try_from(value).is_ok(),
        _ => true,
    }
}

/// The microseconds that `count` units are, if a column with `digits` digits of a second holds them exactly.
#[inline(always)]
fn micros(count: i64, digits: u32, unit: TimeUnitOption) -> Option<i64> {
    let micros = match unit {
        TimeUnitOption::S => count.checked_mul(1_000_000)?,
        TimeUnitOption::Ms => count.checked_mul(1_000)?,
        TimeUnitOption::Us => count,
        TimeUnitOption::Ns if count % 1_000 == 0 => count / 1_000,
        TimeUnitOption::Ns => return None,
    };
    const STEP: [i64; 8] = [1_000_000, 100_000, 10_000, 1_000, 100, 10, 1, 1];
    (digits >= 6 || micros % STEP[digits as usize & 7] == 0).then_some(micros)
}

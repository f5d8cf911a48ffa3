//! Walking over a JSON value that no column wants, checking all of it.
//!
//! The stack of open brackets is one bit each in a 128-bit number, so hostile nesting costs no memory and no recursion. Nothing here
//! builds anything. Called by `walk` for unknown fields and for values of the wrong type.

use super::bad::{Fault, Reason, grammar};
use super::number;
use super::scan::{at, space, string};

/// As deep as objects and arrays may ever be nested: the width of the bracket stack.
pub(super) const DEPTH_MAX: usize = 128;

/// Checks the value that starts at `pos` (white space before it is allowed), `depth` brackets being open already; where it ends.
#[inline]
pub(super) fn value(bytes: &[u8], pos: usize, depth: usize, depth_max: usize) -> Result<usize, Fault> {
    match at(bytes, pos) {
        b'"' => string(bytes, pos + 1).map(|(end, _)| end + 1),
        b'-' | b'0'..=b'9' => number::skip(bytes, pos),
        _ => nested(bytes, pos, depth, depth_max),
    }
}

fn nested(bytes: &[u8], mut pos: usize, depth: usize, depth_max: usize) -> Result<usize, Fault> {
    let mut open = 0_usize;
    let mut objects = 0_u128;
    loop {
        pos = space(bytes, pos);
        let byte = at(bytes, pos);
        match byte {
            b'{' | b'[' => {
                if depth + open >= depth_max.min(DEPTH_MAX) {
                    return Err(Fault { reason: Reason::Depth, offset: pos });
                }
                let object = byte == b'{';
                objects = (objects << 1) | u128::from(object);
                open += 1;
                pos = space(bytes, pos + 1);
                let close = if object { b'}' } else { b']' };
                if at(bytes, pos) != close {
                    if object {
                        pos = key(bytes, pos)?;
                    }
                    continue;
                }
            }
            b'"' => pos = string(bytes, pos + 1)?.0 + 1,
            b'-' | b'0'..=b'9' => pos = number::skip(bytes, pos)?,
            b't' => pos = literal(bytes, pos, b"true")?,
            b'f' => pos = literal(bytes, pos, b"false")?,
            b'n' => pos = literal(bytes, pos, b"null")?,
            _ => return Err(grammar(bytes, pos)),
        }
        // A value, or the inside of an empty bracket, is over: close brackets until a comma asks for the next value.
        loop {
            if open == 0 {
                return Ok(pos);
            }
            pos = space(bytes, pos);
            let object = objects & 1 == 1;
            match at(bytes, pos) {
                b',' if object => {
                    pos = key(bytes, space(bytes, pos + 1))?;
                    break;
                }
                b',' => {
                    pos += 1;
                    break;
                }
                b'}' if object => {}
                b']' if !object => {}
                _ => return Err(grammar(bytes, pos)),
            }
            pos += 1;
            open -= 1;
            objects >>= 1;
        }
    }
}

/// Checks `"key" :` at `pos`; what follows the colon.
fn key(bytes: &[u8], pos: usize) -> Result<usize, Fault> {
    if at(bytes, pos) != b'"' {
        return Err(grammar(bytes, pos));
    }
    let colon = space(bytes, string(bytes, pos + 1)?.0 + 1);
    if at(bytes, colon) == b':' { Ok(colon + 1) } else { Err(grammar(bytes, colon)) }
}

/// Checks that `word` stands at `pos`; what follows it.
pub(super) fn literal(bytes: &[u8], pos: usize, word: &[u8]) -> Result<usize, Fault> {
    for (i, letter) in word.iter().enumerate() {
        if at(bytes, pos + i) != *letter {
            return Err(grammar(bytes, pos + i));
        }
    }
    Ok(pos + word.len())
}

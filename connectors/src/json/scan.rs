//! Looking at many bytes at once: eight-byte loads, runs of digits, the end of a string.
//!
//! Reading past the end of the text is safe everywhere and gives zero bytes, which no rule of JSON allows, so callers need no bounds
//! checks of their own. The only `unsafe` is one 16-byte load of a 16-byte array. On machines other than x86-64 the same masks come
//! from plain 64-bit arithmetic. Nothing here knows a column. Called by every other part of the decoder.

use super::bad::{Fault, Reason, grammar};

#[cfg(any(test, not(target_arch = "x86_64")))]
const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const ZEROS: u64 = 0x3030_3030_3030_3030;

/// The byte at `pos`, or 0 past the end.
#[inline(always)]
pub(super) fn at(bytes: &[u8], pos: usize) -> u8 {
    bytes.get(pos).copied().unwrap_or(0)
}

/// The `N` bytes from `pos` on, if there are as many.
#[inline(always)]
fn chunk<const N: usize>(bytes: &[u8], pos: usize) -> Option<&[u8; N]> {
    // Positions have 32 bits; saying so lets one compare do for the two that an overflow of `pos + N` would need.
    let pos = pos as u32 as usize;
    bytes.get(pos..pos + N).and_then(<[u8]>::first_chunk)
}

/// Eight bytes from `pos`, the first in the lowest byte, zeros past the end.
#[inline(always)]
pub(super) fn load8(bytes: &[u8], pos: usize) -> u64 {
    match chunk(bytes, pos) {
        Some(all) => u64::from_le_bytes(*all),
        None => load8_tail(bytes, pos),
    }
}

/// Fewer than eight bytes are left: take the last eight and drop those before `pos`.
#[inline]
fn load8_tail(bytes: &[u8], pos: usize) -> u64 {
    let missing = (pos + 8).saturating_sub(bytes.len());
    match bytes.last_chunk() {
        Some(_) if missing >= 8 => 0,
        Some(last) => u64::from_le_bytes(*last) >> (8 * missing),
        None => {
            let mut all = [0; 8];
            for (to, from) in all.iter_mut().zip(bytes.iter().skip(pos)) {
                *to = *from;
            }
            u64::from_le_bytes(all)
        }
    }
}

/// Sixteen bytes from `pos` as one number, zeros past the end.
#[inline(always)]
pub(super) fn load16(bytes: &[u8], pos: usize) -> u128 {
    match chunk(bytes, pos) {
        Some(all) => u128::from_le_bytes(*all),
        None => u128::from(load8(bytes, pos)) | (u128::from(load8(bytes, pos + 8)) << 64),
    }
}

/// How many of the eight bytes are digits before the first that is none.
#[inline(always)]
pub(super) fn digits8(word: u64) -> u32 {
    let x = word ^ ZEROS;
    // 0x76 + 9 = 0x7f: a byte over 9 reaches the high bit. A carry only spoils bytes after the first that is no digit.
    let other = (x.wrapping_add(0x7676_7676_7676_7676) | x) & HIGH;
    other.trailing_zeros() / 8
}

/// The number that the first `count` (1 to 8) bytes of `word` spell.
#[inline(always)]
pub(super) fn number8(word: u64, count: u32) -> u64 {
    // Shifting left puts zero digits in front.
    let x = (word ^ ZEROS) << (64 - 8 * count);
    let pairs = x.wrapping_mul(10).wrapping_add(x >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

/// The first position from `pos` on that holds no digit.
#[inline]
pub(super) fn digits(bytes: &[u8], mut pos: usize) -> usize {
    loop {
        let count = digits8(load8(bytes, pos)) as usize;
        pos += count;
        if count < 8 {
            return pos;
        }
    }
}

/// The first position from `pos` on that is no white space.
#[inline(always)]
pub(super) fn space(bytes: &[u8], mut pos: usize) -> usize {
    while matches!(at(bytes, pos), b' ' | b'\n' | b'\r' | b'\t') {
        pos += 1;
    }
    pos
}

/// One bit per byte that may not stand in a string as it is: the quote, the backslash and everything under 0x20.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn stops(chunk: &[u8; 16]) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};
    // SAFETY: SSE2 is part of every x86-64, and the unaligned load reads the 16 bytes of `chunk`.
    unsafe {
        let all = _mm_loadu_si128(chunk.as_ptr().cast());
        let quote = _mm_cmpeq_epi8(all, _mm_set1_epi8(b'"'.cast_signed()));
        let slash = _mm_cmpeq_epi8(all, _mm_set1_epi8(b'\\'.cast_signed()));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(all, _mm_set1_epi8(0x1f)), all);
        _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), control)).cast_unsigned()
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn stops(chunk: &[u8; 16]) -> u32 {
    stops_plain(chunk)
}

/// The same mask from 64-bit arithmetic.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn stops_plain(chunk: &[u8; 16]) -> u32 {
    let word = u128::from_le_bytes(*chunk);
    stops8(word as u64) | (stops8((word >> 64) as u64) << 8)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn stops8(word: u64) -> u32 {
    // Exact for every byte: no carry leaves a byte whose high bit is masked off first.
    let zero = |x: u64| !(((x & !HIGH).wrapping_add(!HIGH)) | x) & HIGH;
    let found = zero(word ^ (LOW * 0x22)) | zero(word ^ (LOW * 0x5c)) | zero(word & (LOW * 0xe0));
    ((found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// The first position from `pos` on whose byte ends a run of plain characters, or the length.
#[inline(always)]
pub(super) fn plain(bytes: &[u8], mut pos: usize) -> usize {
    // Two chunks a turn: fewer turns, and most strings end in their first, so the branch is easy to predict.
    while let Some(two) = chunk::<32>(bytes, pos) {
        let (Some(first), Some(second)) = (two.first_chunk(), two.last_chunk()) else { break };
        let found = stops(first) | (stops(second) << 16);
        if found != 0 {
            return pos + found.trailing_zeros() as usize;
        }
        pos += 32;
    }
    if let Some(one) = chunk(bytes, pos) {
        let found = stops(one);
        if found != 0 {
            return pos + found.trailing_zeros() as usize;
        }
        pos += 16;
    }
    plain_tail(bytes, pos)
}

/// Fewer than sixteen bytes are left: look at the last sixteen and forget those before `pos`.
#[inline(always)]
fn plain_tail(bytes: &[u8], pos: usize) -> usize {
    let found = match bytes.last_chunk() {
        Some(last) => stops(last).unbounded_shr((pos + 16 - bytes.len()) as u32),
        None => stops(&load16(bytes, pos).to_le_bytes()),
    };
    (pos + found.trailing_zeros() as usize).min(bytes.len())
}

/// Whether every byte is under 0x80.
#[inline]
pub(super) fn ascii(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk() else { return bytes.is_ascii() };
    let all = bytes.as_chunks().0.iter().fold(u128::from_le_bytes(*last), |all, chunk| all | u128::from_le_bytes(*chunk));
    all & (u128::from(HIGH) << 64 | u128::from(HIGH)) == 0
}

/// Checks the string whose first byte after the quote is `pos`; the position of its closing quote, and whether it has escapes.
#[inline(always)]
pub(super) fn string(bytes: &[u8], pos: usize) -> Result<(usize, bool), Fault> {
    let stop = plain(bytes, pos);
    if at(bytes, stop) == b'"' { Ok((stop, false)) } else { string_escaped(bytes, stop).map(|end| (end, true)) }
}

#[cold]
#[inline(never)]
fn string_escaped(bytes: &[u8], mut stop: usize) -> Result<usize, Fault> {
    loop {
        match at(bytes, stop) {
            b'"' => return Ok(stop),
            b'\\' => stop = plain(bytes, escape(bytes, stop)?.1),
            _ => return Err(grammar(bytes, stop)),
        }
    }
}

/// Reads the escape whose backslash stands at `pos`: its character and what follows it.
pub(super) fn escape(bytes: &[u8], pos: usize) -> Result<(char, usize), Fault> {
    let plain = match at(bytes, pos + 1) {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return escape_unicode(bytes, pos),
        _ => return Err(grammar(bytes, pos + 1)),
    };
    Ok((plain, pos + 2))
}

fn escape_unicode(bytes: &[u8], pos: usize) -> Result<(char, usize), Fault> {
    let lone = Fault { reason: Reason::Surrogate, offset: pos };
    let first = hex4(bytes, pos + 2)?;
    if !(0xd800..0xe000).contains(&first) {
        return Ok((char::from_u32(first).ok_or(lone)?, pos + 6));
    }
    let second = pos + 6;
    if first >= 0xdc00 {
        return Err(lone);
    }
    match (bytes.get(second), bytes.get(second + 1)) {
        (Some(b'\\'), Some(b'u')) => {}
        (None, _) | (Some(b'\\'), None) => return Err(grammar(bytes, bytes.len())),
        _ => return Err(lone),
    }
    let low = hex4(bytes, second + 2)?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(lone);
    }
    let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
    Ok((char::from_u32(code).ok_or(lone)?, second + 6))
}

fn hex4(bytes: &[u8], pos: usize) -> Result<u32, Fault> {
    let mut code = 0;
    for place in pos..pos + 4 {
        let digit = char::from(at(bytes, place)).to_digit(16).ok_or_else(|| grammar(bytes, place))?;
        code = code * 16 + digit;
    }
    Ok(code)
}

/// Appends the text of a string that [`string`] has found good (without its quotes) to `out`.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut pos = 0;
    while pos < text.len() {
        let stop = text.iter().skip(pos).position(|byte| *byte == b'\\').map_or(text.len(), |run| pos + run);
        out.extend_from_slice(text.get(pos..stop).unwrap_or_default());
        if stop == text.len() {
            return;
        }
        let Ok((character, next)) = escape(text, stop) else { return };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        pos = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_agree_for_every_byte_and_place() {
        for byte in 0..=255_u8 {
            for place in 0..16 {
                for fill in [b'a', 0x80, 0xff, b'"', b'!', 0x7f, 0x1f, 0x20] {
                    let mut chunk = [fill; 16];
                    chunk[place] = byte;
                    let naive = (0..16).filter(|i| matches!(chunk[*i], 0..0x20 | b'"' | b'\\')).fold(0, |mask, i| mask | (1 << i));
                    assert_eq!(stops(&chunk), naive);
                    assert_eq!(stops_plain(&chunk), naive);
                }
            }
        }
    }

    #[test]
    fn the_end_of_a_plain_run_is_found_at_every_place() {
        for len in 0..100 {
            for start in 0..=len {
                let mut text = vec![b'a'; len];
                assert_eq!(plain(&text, start), len);
                assert!(ascii(&text));
                for stop in start..len {
                    text[stop] = b'"';
                    assert_eq!(plain(&text, start), stop);
                    text[stop] = 0x80;
                    assert_eq!(plain(&text, start), len);
                    assert!(!ascii(&text));
                    text[stop] = b'a';
                }
                if start > 0 {
                    text[start - 1] = b'"';
                    assert_eq!(plain(&text, start), len);
                }
            }
        }
    }

    #[test]
    fn loads_are_zero_past_the_end() {
        let all: Vec<u8> = (1..=40).collect();
        for len in 0..all.len() {
            for pos in 0..len + 20 {
                let naive = |width: usize| (0..width).fold(0_u128, |sum, i| sum | (u128::from(at(&all[..len], pos + i)) << (8 * i)));
                assert_eq!(u128::from(load8(&all[..len], pos)), naive(8), "{len} {pos}");
                assert_eq!(load16(&all[..len], pos), naive(16), "{len} {pos}");
            }
        }
    }

    #[test]
    fn digits_are_counted_and_read() {
        for byte in 0..=255_u8 {
            for place in 0..8 {
                let mut text = *b"98765432";
                text[place] = byte;
                let naive = text.iter().take_while(|b| b.is_ascii_digit()).count();
                let word = u64::from_le_bytes(text);
                assert_eq!(digits8(word) as usize, naive);
                if naive > 0 {
                    let spelled: u64 = std::str::from_utf8(&text[..naive]).unwrap().parse().unwrap();
                    assert_eq!(number8(word, naive as u32), spelled);
                }
            }
        }
    }
}

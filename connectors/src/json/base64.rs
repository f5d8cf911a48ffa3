//! Base64 of RFC 4648: the standard alphabet, padded or not, in its one canonical spelling.
//!
//! Bits that no byte uses must be zero, so every accepted text stands for other bytes than every other but for its padding. Called by
//! `walk` to check and by `columns` to decode.

/// Decodes `text` and hands each byte to `put`; false if it is no base64, after which what `put` got means nothing.
pub(super) fn decode(text: &[u8], mut put: impl FnMut(u8)) -> bool {
    let body =
        if text.len().is_multiple_of(4) { text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text) } else { text };
    if body.len() % 4 == 1 {
        return false;
    }
    let mut bits = 0_u32;
    let mut held = 0;
    for letter in body {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return false,
        };
        bits = (bits << 6) | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            put((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    bits == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        let read = |text: &str| {
            let mut out = Vec::new();
            decode(text.as_bytes(), |byte| out.push(byte)).then_some(out)
        };
        for (text, want) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zg", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm8", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Zm9vYmFy", Some("foobar")),
            ("Z", None),
            ("Zg=", None),
            ("Zg===", None),
            ("=", None),
            ("====", None),
            ("Zh==", None),
            ("Zm9=", None),
            ("Zm9v====", None),
            ("Zm9v=", None),
            ("Zm-v", None),
            ("Zm v", None),
        ] {
            assert_eq!(read(text), want.map(|bytes| bytes.as_bytes().to_vec()), "{text}");
        }
        assert_eq!(read("+/8="), Some(vec![0xfb, 0xff]));
    }
}

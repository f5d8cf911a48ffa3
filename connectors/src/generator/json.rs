//! Writes JSON text into a byte buffer.
//!
//! What always holds: the text is valid JSON in valid UTF-8 on one line, object fields stand in the order in which they were written, and
//! every byte is decided here. Not here: reading JSON.

/// An object being written. Dropping it without [`Object::end`] leaves it open.
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    /// Opens an object at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A whole number.
    pub fn int(&mut self, name: &str, value: i64) {
        self.name(name);
        write_int(self.out, value);
    }

    /// Text that may hold anything.
    pub fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        write_text(self.out, value);
    }

    /// ASCII text known to need no escape: codes and ids.
    pub fn plain(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value);
        self.out.push(b'"');
    }

    /// A value that already is JSON.
    pub fn raw(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(value);
    }

    /// An explicit null.
    pub fn null(&mut self, name: &str) {
        self.raw(name, b"null");
    }

    /// A nested object, open until its own `end`.
    pub fn object(&mut self, name: &str) -> Object<'_> {
        self.name(name);
        Object::begin(self.out)
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push(b'}');
    }
}

/// A whole number in digits.
pub fn write_int(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// A string in quotes, with the escapes that JSON asks for and no others.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (byte >> 4), b"0123456789abcdef"[usize::from(byte & 15)]]),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_writes_reads_back() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.text("text", "a\"\\\n\r\t\u{0}\u{1f}ß本🦀");
        object.int("low", i64::MIN);
        object.int("zero", 0);
        object.null("none");
        let mut inner = object.object("inner");
        inner.plain("code", b"abc");
        inner.end();
        object.object("empty").end();
        object.raw("list", b"[1,2]");
        object.end();
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({"text": "a\"\\\n\r\t\u{0}\u{1f}ß本🦀", "low": i64::MIN, "zero": 0, "none": null,
            "inner": {"code": "abc"}, "empty": {}, "list": [1, 2]});
        assert_eq!(read, expected);
        assert!(!out.contains(&b'\n'));
    }
}

//! Random documents for the tests: mostly what the columns of the tests take, in many spellings, and sometimes anything else.
//!
//! The same seed gives the same documents. Test only.

use super::tests::{MICROS, everything, structure};
use super::{DataType, TEXT_TYPE};

/// SplitMix64: the same documents in every run.
pub(super) struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(super) fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn digits(&mut self, most: usize) -> String {
        let count = 1 + self.below(most);
        (0..count).map(|_| char::from(b'0' + self.pick(&[0, 0, 1, 2, 5, 9, 9, 7]))).collect()
    }

    fn space(&mut self) -> &'static str {
        if self.one_in(12) { self.pick(&[" ", "\n", "\t", "\r\n  ", "          "]) } else { "" }
    }

    fn number(&mut self) -> String {
        if self.one_in(3) {
            return self.below(100_000).to_string();
        }
        if self.one_in(3) {
            return self
                .pick(&[
                    "0",
                    "-0",
                    "1e3",
                    "12.0",
                    "1.5",
                    "-0.0",
                    "9223372036854775807",
                    "9223372036854775808",
                    "-9223372036854775808",
                    "-9223372036854775809",
                    "2147483647",
                    "2147483648",
                    "-2147483648",
                    "32767",
                    "32768",
                    "-32769",
                    "1e400",
                    "-1e400",
                    "1e39",
                    "3.4028235e38",
                    "3.4028236e38",
                    "1e-400",
                    "0e400",
                    "1e1000000000000000000000",
                    "1E+2",
                    "1000e-3",
                    "1e-3",
                    "2.2500",
                    "2.2501",
                    "999999.99",
                    "1000000.00",
                    "1700000000000",
                    "1700000000000123",
                    "1700000000000123456",
                    "0.1",
                    "123456.789",
                    "1.7976931348623157e308",
                    "1.7976931348623159e308",
                    "5e-324",
                    "16777217",
                    "0.30000000000000004",
                    "9999999999999999",
                    "12345678901234567",
                    "01",
                    "1.",
                    ".5",
                    "+1",
                    "1e",
                    "-",
                    "0x1",
                    "1e+",
                    "--1",
                ])
                .to_string();
        }
        let whole = self.digits(20);
        let whole = if self.one_in(10) { whole } else { whole.trim_start_matches('0').to_string() };
        let mut text = format!("{}{}", self.pick(&["", "-"]), if whole.is_empty() { "0" } else { &whole });
        if self.one_in(2) {
            text += &format!(".{}", self.digits(12));
        }
        if self.one_in(4) {
            text += &format!("{}{}{}", self.pick(&["e", "E"]), self.pick(&["", "+", "-"]), self.below(30));
        }
        text
    }

    fn time(&mut self) -> String {
        let mut text = if self.one_in(4) {
            self.pick(&[
                "1970-01-01",
                "2000-02-29",
                "1900-02-29",
                "2025-02-30",
                "0000-01-01",
                "9999-12-31",
                "2024-13-01",
                "2024-1-01",
                "2024-00-10",
            ])
            .to_string()
        } else {
            format!("{:04}-{:02}-{:02}", 1 + self.below(9999), 1 + self.below(12), 1 + self.below(31))
        };
        if self.one_in(8) {
            return text;
        }
        text += self.pick(&["T", "T", "T", "t", " ", "x"]);
        text += &format!("{:02}:{:02}:{:02}", self.below(25), self.below(61), self.below(61));
        if self.one_in(2) {
            text += &format!(".{}", self.digits(9));
        }
        text + self.pick(&["Z", "Z", "Z", "z", "+02:00", "-05:30", "+24:00", "", "+0200", "ZZ", "-00:00"])
    }

    fn string(&mut self) -> String {
        let inside = match self.below(10) {
            0 => self.number(),
            1 | 2 => self.time(),
            3 => self.time().chars().take(10).collect(),
            4 => self
                .pick(&["", "Zg==", "Zg", "Zm9vYmFy", "Zm9v=", "Zh==", "A", "true", "false", "aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ="])
                .to_string(),
            5 => (0..self.below(80)).map(|_| char::from(b'a' + self.below(26) as u8)).collect(),
            _ => (0..self.below(12))
                .map(|_| {
                    self.pick(&[
                        "a",
                        "b",
                        "é",
                        "€",
                        "😀",
                        "\\n",
                        "\\\\",
                        "\\\"",
                        "\\/",
                        "\\u0000",
                        "\\u00e9",
                        "\\ud83d\\ude00",
                        "\\uD83D\\uDE00",
                        "plain text ",
                        "\u{7f}",
                        "\\u20AC",
                        "{",
                        "]",
                        ",",
                        ":",
                    ])
                })
                .collect(),
        };
        let inside = if self.one_in(60) {
            inside + self.pick(&["\\ud83d", "\\ude00", "\\x", "\n", "\0", "\\u12", "\\ud83dx", "\\ud83d\\n", "\\ud83d\\u0041"])
        } else {
            inside
        };
        // A value spelled with an escape is the same value.
        if self.one_in(8) && inside.is_ascii() && !inside.is_empty() && !inside.contains('\\') {
            let spot = self.below(inside.len());
            let code = u32::from(inside.as_bytes()[spot]);
            return format!("\"{}\\u{code:04x}{}\"", &inside[..spot], &inside[spot + 1..]);
        }
        format!("\"{inside}\"")
    }

    fn scalar(&mut self) -> String {
        match self.below(8) {
            0..=2 => self.number(),
            3..=5 => self.string(),
            _ => self.pick(&["true", "false", "null", "null", "nul", "NaN", "Infinity", "True", "{}", "[]"]).to_string(),
        }
    }

    fn any(&mut self, depth: usize) -> String {
        if depth == 0 || self.one_in(2) {
            return self.scalar();
        }
        let count = self.below(4);
        if self.one_in(2) {
            let all: Vec<String> = (0..count).map(|_| format!("{}{}{}", self.space(), self.any(depth - 1), self.space())).collect();
            format!("[{}]", all.join(","))
        } else {
            self.object(&[], count, depth - 1)
        }
    }

    /// Mostly what `kind` takes.
    fn of(&mut self, kind: &DataType) -> String {
        if self.one_in(40) {
            return self.any(3);
        }
        if self.one_in(60) {
            return self.number();
        }
        if self.one_in(20) {
            return "null".into();
        }
        match kind {
            DataType::Boolean => self.pick(&["true", "false"]).into(),
            DataType::Int16 | DataType::Int32 | DataType::Int64 => match self.below(8) {
                0 => self.number(),
                1 => format!("{}.{}", self.below(30_000), "0".repeat(1 + self.below(3))),
                2 => format!("{}e{}", self.below(30), self.below(3)),
                3 => format!("-{}", self.below(30_000)),
                _ => self.below(30_000).to_string(),
            },
            DataType::Float32 | DataType::Float64 => {
                self.pick(&["1.5", "0.1", "-7", "1e10", "123456.789", "0", "-0", "-0.0", "3.3333333333333333333333"]).into()
            }
            DataType::Decimal128(..) => {
                let text = format!("{}.{:02}", self.below(100_000), self.below(100));
                if self.one_in(4) { format!("\"{text}\"") } else { text }
            }
            DataType::Binary => self.pick(&["\"\"", "\"Zg==\"", "\"Zm9vYmFy\"", "\"Zm8\"", "\"aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=\""]).into(),
            DataType::Date32 => format!("\"{:04}-{:02}-{:02}\"", 1900 + self.below(200), 1 + self.below(12), 1 + self.below(28)),
            DataType::Timestamp(..) => match self.below(3) {
                0 => format!("{}", 1_700_000_000_000_u64 + self.next() % 1_000_000_000),
                1 => format!("{}000", 1_700_000_000_000_000_u64 + self.next() % 1_000_000_000),
                _ => format!(
                    "\"20{:02}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z\"",
                    self.below(100),
                    1 + self.below(12),
                    1 + self.below(28),
                    self.below(24),
                    self.below(60),
                    self.below(60),
                    self.below(1000)
                ),
            },
            DataType::List(part) => {
                let all: Vec<String> =
                    (0..self.below(5)).map(|_| format!("{}{}{}", self.space(), self.of(part.data_type()), self.space())).collect();
                format!("[{}]", all.join(","))
            }
            DataType::Struct(parts) => {
                let fields: Vec<(String, DataType)> = parts.iter().map(|part| (part.name().clone(), part.data_type().clone())).collect();
                let extra = self.below(3) / 2;
                self.object(&fields, extra, 2)
            }
            _ => self.string(),
        }
    }

    /// An object of some of `fields` and `extra` others, in some order.
    fn object(&mut self, fields: &[(String, DataType)], extra: usize, depth: usize) -> String {
        let mut all = Vec::new();
        for (name, kind) in fields {
            if !self.one_in(5) {
                let value = self.of(kind);
                all.push((name.clone(), value));
            }
            if self.one_in(25) {
                let value = self.any(depth);
                all.push((name.clone(), value));
            }
        }
        for _ in 0..extra {
            let value = self.any(depth);
            all.push((self.pick(&["zz", "i64", "x", "ip", "n", "é", "", "a longer key than any glue would hold"]).to_string(), value));
        }
        if self.one_in(3) {
            for from in 0..all.len() {
                let to = self.below(all.len());
                all.swap(from, to);
            }
        }
        let mut text = String::from("{");
        for (i, (key, value)) in all.iter().enumerate() {
            let key = if self.one_in(30) && key.is_ascii() && !key.is_empty() {
                format!("\\u{:04x}{}", u32::from(key.as_bytes()[0]), &key[1..])
            } else {
                key.clone()
            };
            let comma = if i == 0 { "" } else { "," };
            text += &format!("{comma}{}\"{key}\"{}:{}{value}{}", self.space(), self.space(), self.space(), self.space());
        }
        text + "}"
    }

    pub(super) fn record(&mut self) -> Vec<u8> {
        let mut fields: Vec<(String, DataType)> =
            everything().into_iter().filter(|column| column.path.len() == 1).map(|column| (column.name, column.data_type)).collect();
        let more = structure(vec![("y", TEXT_TYPE)]);
        fields.push(("nested".into(), structure(vec![("x", DataType::Int32), ("ts", MICROS), ("more", more)])));
        fields.push(("i64".into(), DataType::Int64));
        let few = self.one_in(2);
        fields.retain(|(name, _)| !few || name == "i64" || self.one_in(4));
        let extra = self.below(4) / 3;
        format!("{}{}{}", self.space(), self.object(&fields, extra, 3), self.space()).into_bytes()
    }

    pub(super) fn mutate(&mut self, payload: &mut Vec<u8>) {
        for _ in 0..1 + self.below(2) {
            let spot = self.below(payload.len().max(1));
            let byte = if self.one_in(2) {
                self.pick(b"\"\\{}[],:0123456789eE+-.tfn \x00\x1f\x7f\x80\xc3\xe2\xf0\xff")
            } else {
                self.next() as u8
            };
            match self.below(4) {
                _ if payload.is_empty() => payload.push(byte),
                0 => payload[spot] = byte,
                1 => payload.insert(spot, byte),
                2 => {
                    payload.remove(spot);
                }
                _ => payload.truncate(spot),
            }
        }
    }
}

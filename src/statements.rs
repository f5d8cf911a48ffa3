//! A text of several SQL statements, cut at the semicolons that end them.
//!
//! Always: semicolons in strings, quoted names and comments do not count; each piece keeps its leading comments and the line it stands
//! on, so errors name the place in the whole text. No parser: what is inside a statement is the planner's business.

/// One statement of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Without its semicolon; comments before it included.
    pub text: &'a str,
    /// Line and column where `text` begins, counted from 0.
    pub line: usize,
    pub column: usize,
}

impl Piece<'_> {
    /// The text with blank lines and spaces before it, so that places in errors are those of the whole.
    pub fn in_place(&self) -> String {
        format!("{}{}{}", "\n".repeat(self.line), " ".repeat(self.column), self.text)
    }

    /// Whether there is anything but space and comments.
    fn is_empty(&self) -> bool {
        let mut rest = self.text.trim_start();
        while !rest.is_empty() {
            rest = match skip(rest) {
                Some((Kind::Comment, length)) => rest.get(length..).unwrap_or_default().trim_start(),
                _ => return false,
            };
        }
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quoted,
    Comment,
}

/// The length of the string, quoted name or comment that `text` begins with. One that does not end takes all.
fn skip(text: &str) -> Option<(Kind, usize)> {
    let after = |from: usize, end: &str| text.get(from..).and_then(|rest| rest.find(end)).map_or(text.len(), |at| from + at + end.len());
    match text.as_bytes() {
        [b'-', b'-', ..] => Some((Kind::Comment, after(2, "\n"))),
        [b'/', b'*', ..] => Some((Kind::Comment, block(text))),
        // A doubled quote inside ends one string and begins the next: all the same here.
        [b'\'', ..] => Some((Kind::Quoted, after(1, "'"))),
        [b'"', ..] => Some((Kind::Quoted, after(1, "\""))),
        _ => None,
    }
}

/// The length of a block comment; they nest.
fn block(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The statements of a text, empty ones left out; what follows the last semicolon counts as one.
pub fn split(text: &str) -> Vec<Piece<'_>> {
    cut(text).0
}

/// Whether a text ends within a statement, a string or a comment: the prompt asks for more.
pub fn open(text: &str) -> bool {
    cut(text).1
}

fn cut(text: &str) -> (Vec<Piece<'_>>, bool) {
    let mut pieces = Vec::new();
    let (mut begin, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if let Some((_, length)) = skip(rest) {
            at += length;
        } else if rest.starts_with(';') {
            pieces.extend(piece(text, begin, at));
            at += 1;
            begin = at;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    let last = piece(text, begin, text.len());
    let open = last.is_some();
    pieces.extend(last);
    (pieces, open)
}

fn piece(text: &str, from: usize, to: usize) -> Option<Piece<'_>> {
    let (before, inside) = (text.get(..from)?, text.get(from..to)?);
    let line = before.matches('\n').count();
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count());
    let piece = Piece { text: inside, line, column };
    (!piece.is_empty()).then_some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<&str> {
        split(text).iter().map(|piece| piece.text.trim()).collect()
    }

    #[test]
    fn only_semicolons_that_end_a_statement_cut() {
        assert_eq!(texts("a; b ;; -- c;\n"), ["a", "b"]);
        assert_eq!(
            texts("select ';', \"x;y\", 'it''s;' /* ; /* ; */ ; */; two"),
            ["select ';', \"x;y\", 'it''s;' /* ; /* ; */ ; */", "two"]
        );
        assert_eq!(texts("-- only this"), Vec::<&str>::new());
        assert_eq!(texts("é;ü"), ["é", "ü"]);
    }

    #[test]
    fn a_piece_knows_its_place() {
        let pieces = split("one;\n  two;");
        assert_eq!(pieces.last().map(|piece| (piece.line, piece.column)), Some((0, 4)));
        assert_eq!(pieces.last().map(Piece::in_place), Some("    \n  two".to_owned()));
    }

    #[test]
    fn the_prompt_waits_for_the_end() {
        assert!(open("select 1"));
        assert!(open("select ';"));
        assert!(!open("select 1;"));
        assert!(!open("select 1; -- done"));
        assert!(!open("  "));
    }
}

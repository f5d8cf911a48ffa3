//! `tidemill sql`: queries from `-c`, from stdin or typed at a prompt, answered on stdout.
//!
//! Always: read-only; every statement sees the newest epoch when it begins; the first one that fails ends the command, with 2 if it was
//! wrong and 1 if it broke. The prompt stands in `prompt`.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use crate::answers::{Asking, Cancel, Format};
use crate::cli::{Common, SqlArgs};
use crate::exit::{Outcome, refused};
use crate::prompt;
use crate::statements::{self, Piece};

/// A query of `-c` that takes longer is ended.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

pub fn sql(args: &SqlArgs, common: &Common) -> Outcome {
    let data = common.data();
    let threads = common.workers();
    let limit = (!args.queries.is_empty()).then_some(COMMAND_LIMIT);
    let text_name = match (args.queries.is_empty(), std::io::stdin().is_terminal()) {
        (false, _) => "-c",
        (true, true) => "<prompt>",
        (true, false) => "<stdin>",
    };
    let asking = Asking::named(&data, args.memory, limit, threads, text_name)?;
    let mut session = Session { asking: &asking, format: args.format.into(), answered: 0 };
    if !args.queries.is_empty() {
        for query in &args.queries {
            session.text(query)?;
        }
        return Ok(());
    }
    if std::io::stdin().is_terminal() {
        return prompt::prompt(&asking, &data, args.format.into(), common.quiet);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| refused(format!("stdin: {error}")))?;
    session.text(&text)
}

struct Session<'a> {
    asking: &'a Asking,
    format: Format,
    answered: usize,
}

impl Session<'_> {
    fn text(&mut self, text: &str) -> Outcome {
        let pieces = statements::split(text);
        if pieces.is_empty() && self.answered == 0 {
            return Err(refused("there is no statement"));
        }
        pieces.iter().try_for_each(|piece| self.statement(piece))
    }

    /// A blank line parts an answer from the one before it; an error is no answer.
    fn statement(&mut self, piece: &Piece<'_>) -> Outcome {
        let parted = self.answered > 0 && matches!(self.format, Format::Csv | Format::Table);
        self.asking.print(&piece.in_place(), self.format, Cancel::Never, parted)?;
        self.answered += 1;
        Ok(())
    }
}

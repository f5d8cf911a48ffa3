//! The bet that a record repeats the keys of the one before.
//!
//! What stands between the end of one value and the start of the next (`, "bidder": `, white space and all) is the *glue*. Glue that
//! the grammar has once been checked on is kept with what it leads to and with the glue that followed it last. The next record then
//! needs two compares of 16 bytes instead of a parse and a look-up. A lost bet costs that compare. An entry matches only in the same
//! object and at the same kind of place, so equal bytes always mean the same. The table is a direct-mapped cache of fixed size: keys
//! that never come back cost no memory. Called by `walk`.

use super::plan::{Plan, Target};
use super::scan::load16;

const BETS: usize = 256;
/// Longer glue is parsed each time.
pub(super) const GLUE_BYTES_MAX: usize = 32;

/// Glue that has been seen.
#[derive(Debug, Clone, Copy)]
struct Bet {
    head: u128,
    mask: u128,
    /// The last 16 bytes where there are more than 16.
    tail: u128,
    len: u32,
    place: Place,
    target: Target,
}

/// Where glue may stand: in the object of which node, and whether right after its `{`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// No object's place.
    const NOWHERE: Self = Self(u32::MAX);

    #[inline(always)]
    pub(super) fn first(node: usize) -> Self {
        Self((node as u32) << 1)
    }

    #[inline(always)]
    pub(super) fn after_a_value(self) -> Self {
        Self(self.0 | 1)
    }

    pub(super) fn is_first(self) -> bool {
        self.0 & 1 == 0
    }

    pub(super) fn node(self) -> usize {
        (self.0 >> 1) as usize
    }
}

/// What followed what. An entry's number is also the link to the glue after it; the first glue of node `n` hangs on link `BETS + n`.
#[derive(Debug)]
pub(super) struct Bets {
    entries: Box<[Bet; BETS]>,
    links: Vec<u8>,
}

impl Bets {
    pub(super) fn new(plan: &Plan) -> Self {
        let none = Bet { head: 0, mask: 0, tail: 0, len: 0, place: Place::NOWHERE, target: Target::Skip };
        Self { entries: Box::new([none; BETS]), links: vec![0; BETS + plan.nodes.len()] }
    }

    /// The link on which the first glue of `node` hangs.
    #[inline(always)]
    pub(super) fn first(node: usize) -> usize {
        BETS + node
    }

    /// If the glue expected after `link` stands at `pos`: what it leads to, where the value starts, and the next link.
    #[inline(always)]
    pub(super) fn take(&self, link: usize, place: Place, bytes: &[u8], pos: usize) -> Option<(Target, usize, usize)> {
        let guess = usize::from(self.links.get(link).copied().unwrap_or(0));
        let bet = &self.entries[guess];
        let end = pos + bet.len as usize;
        let won = load16(bytes, pos) & bet.mask == bet.head && bet.place == place && (bet.len <= 16 || load16(bytes, end - 16) == bet.tail);
        won.then_some((bet.target, end, guess))
    }

    /// Where `glue` has its entry, what it leads to if that is known, and from now on the bet after `link`.
    pub(super) fn find(&mut self, link: usize, place: Place, glue: &[u8]) -> (usize, Option<Target>) {
        let number = hash(glue) as usize % BETS;
        if let Some(to) = self.links.get_mut(link) {
            *to = number as u8;
        }
        (number, self.take(link, place, glue, 0).filter(|(_, end, _)| *end == glue.len()).map(|(target, ..)| target))
    }

    /// Keeps what `glue` (at most [`GLUE_BYTES_MAX`] bytes) leads to.
    pub(super) fn learn(&mut self, number: usize, place: Place, glue: &[u8], target: Target) {
        let len = glue.len();
        let mask = if len >= 16 { u128::MAX } else { (1 << (8 * len)) - 1 };
        let tail = if len > 16 { load16(glue, len - 16) } else { 0 };
        if let Some(entry) = self.entries.get_mut(number) {
            *entry = Bet { head: load16(glue, 0), mask, tail, len: len as u32, place, target };
        }
    }
}

/// FNV-1a.
fn hash(glue: &[u8]) -> u32 {
    let all = glue.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    all ^ (all >> 16)
}

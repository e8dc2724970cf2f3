//! The rules of CLUSTER.md as switches. A rule left out must lead the explorer to a stale read.

use std::fmt;
use std::str::FromStr;

/// One rule that can be left out. Letters (a)–(j) are rules of CLUSTER.md marked °; the others are repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// (a) R2: a voter is an (id, incarnation), not an id.
    VoterIncarnation,
    /// (b) R3: 1.1 × aa pass after a majority has acknowledged.
    Wait,
    /// (c) R3a: a document is written only when its predecessor is settled.
    Settled,
    /// (d) R3b: an entry is kept only if the node owned its key in every document between.
    KeptBetween,
    /// (e) R3b: a node that gains a key first drops what is left of it.
    GainedDrops,
    /// (f) R3c: document, confirmation and barrier are checked together with the operation.
    Atomic,
    /// (g) §5: entries are handed over only to the owner directly after.
    DirectlyAfter,
    /// (h) §5: an answer is installed only while its ask is pending.
    PendingAsk,
    /// (i) §5: an invalidation is answered only after the barrier.
    InvalidationBarrier,
    /// (j) §7: an invalidation answered under differing epochs is repeated whole.
    InvalidationRepeated,
    /// Repair of R4: a mass removal takes effect when *all* of its own members have acknowledged it (and 1.1 × aa has
    /// passed); as written, a majority of its own voters and the store.
    MassEverybody,
    /// Repair of R4: besides, the voters of its unsettled predecessors have acknowledged it too, but for those that the
    /// writer finds absent for `--mass-absence-after`; as written, they are not asked.
    MassPredecessors,
    /// Repair of R4: for a mass removal the lease must have been gone for `--mass-absence-after` too; as written, gone.
    MassLease,
    /// Repair of §2: a restored store votes and takes documents only after every running process was reached and the newest
    /// document that one of them knows was put back; as written, the first process that sees the restored store may use it.
    RestoreFenced,
    /// The second half of that repair: all nodes are emptied then.
    RestoreEmpties,
    /// No rule but the border of the promise, R4's exception: the model does not go where a majority of the voters of a
    /// document that may still be acted under (the last settled one and all after it) lives on the far side, out of the
    /// store's reach for longer than `--mass-absence-after`.
    MassException,
    /// Repair of R5: a warm start is told apart from a second process with a copy of the same data directory: the start
    /// takes a new incarnation in the document (the entries stay); as written, both have the same one.
    WarmRenamed,
    /// Repair of R3: the lock of a data directory proves nothing about incarnations that ran where the directory was
    /// copied from; as written, the lock may prove an earlier incarnation of the id dead.
    LockOfCopy,
}

impl Rule {
    /// Every rule, in the order of the letters, the repairs last.
    pub const ALL: [Rule; 18] = [
        Rule::VoterIncarnation,
        Rule::Wait,
        Rule::Settled,
        Rule::KeptBetween,
        Rule::GainedDrops,
        Rule::Atomic,
        Rule::DirectlyAfter,
        Rule::PendingAsk,
        Rule::InvalidationBarrier,
        Rule::InvalidationRepeated,
        Rule::MassEverybody,
        Rule::MassPredecessors,
        Rule::MassLease,
        Rule::RestoreFenced,
        Rule::RestoreEmpties,
        Rule::MassException,
        Rule::WarmRenamed,
        Rule::LockOfCopy,
    ];

    /// The name of the rule, which is also the name of its file in `schedules/`.
    pub const fn name(self) -> &'static str {
        match self {
            Rule::VoterIncarnation => "voter-incarnation",
            Rule::Wait => "wait",
            Rule::Settled => "settled",
            Rule::KeptBetween => "kept-between",
            Rule::GainedDrops => "gained-drops",
            Rule::Atomic => "atomic",
            Rule::DirectlyAfter => "directly-after",
            Rule::PendingAsk => "pending-ask",
            Rule::InvalidationBarrier => "invalidation-barrier",
            Rule::InvalidationRepeated => "invalidation-repeated",
            Rule::MassEverybody => "mass-everybody",
            Rule::MassPredecessors => "mass-predecessors",
            Rule::MassException => "mass-exception",
            Rule::MassLease => "mass-lease",
            Rule::RestoreFenced => "restore-fenced",
            Rule::RestoreEmpties => "restore-empties",
            Rule::WarmRenamed => "warm-renamed",
            Rule::LockOfCopy => "lock-of-copy",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Rule::ALL
            .into_iter()
            .find(|rule| rule.name() == text)
            .ok_or_else(|| format!("no rule is named {text}"))
    }
}

/// The set of rules in force.
///
/// # Defaults
/// All of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    in_force: u32,
}

impl Rules {
    /// All rules but one.
    pub const fn without(rule: Rule) -> Self {
        Self { in_force: Self::all().in_force & !(1 << rule as u32) }
    }

    /// All rules.
    pub const fn all() -> Self {
        Self { in_force: (1 << Rule::ALL.len()) - 1 }
    }

    /// This set less one rule more.
    #[must_use]
    pub const fn and_without(self, rule: Rule) -> Self {
        Self { in_force: self.in_force & !(1 << rule as u32) }
    }

    /// Whether the rule is in force.
    pub const fn has(self, rule: Rule) -> bool {
        self.in_force & (1 << rule as u32) != 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::all()
    }
}

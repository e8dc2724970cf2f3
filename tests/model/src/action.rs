//! Actions are plain data: a kind and up to two small numbers. Each has a one-line text form, so that a schedule is a file.
//!
//! An action that is not enabled when it is replayed does nothing, which is what lets the shrinker leave lines out.

use std::fmt;
use std::str::FromStr;

/// What a number of an action means, and so how it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// No number.
    None,
    /// A process, `n2`.
    Node,
    /// A key, `k1`.
    Key,
    /// A document by its epoch, `d3`.
    Document,
    /// A bare number: ticks, or the rotation of the owners' table.
    Number,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $text:literal $first:ident $second:ident;)*) => {
        /// The kinds of actions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$name,)*];

            /// The word that a line begins with.
            pub const fn text(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }

            /// What the two numbers mean.
            pub const fn arguments(self) -> [Argument; 2] {
                match self { $(Kind::$name => [Argument::$first, Argument::$second],)* }
            }
        }
    };
}

kinds! {
    /// True time passes; every process's clock advances at its own rate.
    Tick "tick" Number None;
    /// A asks B whether A's document is the newest, and has the answer at once.
    Talk "talk" Node Node;
    /// A asks everybody that it reaches, and the store.
    Round "round" Node None;
    /// A asks B for confirmation; the question and its answer travel apart.
    Ask "ask" Node Node;
    /// The oldest message from A to B arrives.
    Deliver "deliver" Node Node;
    /// The newest message from A to B arrives, before the older ones.
    DeliverNewest "deliver-newest" Node Node;
    /// The oldest message from A to B is lost.
    Lose "lose" Node Node;
    /// A reads the store (its vote too) and renews its lease.
    ReadStore "read-store" Node None;
    /// A caller with the ring of a document asks the owner by it, and sends the epoch.
    GetRing "get" Key Document;
    /// A caller without a ring asks any node, which forwards one hop.
    GetVia "get-via" Key Node;
    /// Set, by a caller with a ring.
    SetRing "set" Key Document;
    /// Set, by a caller without one.
    SetVia "set-via" Key Node;
    /// Delete, by a caller without a ring.
    DeleteVia "delete-via" Key Node;
    /// A node checks that it may act for a Set.
    BeginSet "begin-set" Key Node;
    /// The Set that was checked before is done.
    FinishSet "finish-set" Node None;
    /// A node evicts an entry.
    Evict "evict" Key Node;
    /// A node's ask to the previous owner times out.
    TimeOut "time-out" Key Node;
    /// A previous owner pushes an entry that moved.
    Push "push" Key Node;
    /// Without rule (g): a node asks the owner before the previous one.
    AskOlder "ask-older" Key Node;
    /// An invalidation of everything begins at a node.
    Invalidate "invalidate" Node None;
    /// The invalidation that A carries reaches B, and B's answer A.
    Carry "carry" Node Node;
    /// A process writes a document that adds it.
    Join "join" Node None;
    /// A process writes a document that adds it and another one.
    JoinTwo "join-two" Node Node;
    /// A member writes a document without itself; it hands over.
    Leave "leave" Node None;
    /// A member writes a document under which the keys lie otherwise.
    Weigh "weigh" Node Number;
    /// A member takes out one that is absent: A takes out the incarnation that B's id has.
    Remove "remove" Node Node;
    /// A member takes out all that are absent, by the rule of mass removal.
    MassRemove "mass-remove" Node None;
    /// A node that knows a newer document than the store writes it back.
    WriteBack "write-back" Node None;
    /// The link between two nodes is cut.
    Cut "cut" Node Node;
    /// A node is cut off from all others, the store not included.
    Isolate "isolate" Node None;
    /// The link between a node and the store is cut.
    CutStore "cut-store" Node None;
    /// A node's links are whole again.
    Heal "heal" Node None;
    /// All links are whole again.
    HealAll "heal-all" None None;
    /// The store stops answering.
    StoreDown "store-down" None None;
    /// The store answers again.
    StoreUp "store-up" None None;
    /// The store is restored from a backup that has this document.
    Restore "restore" Document None;
    /// All nodes are emptied, and the newest document that one of them knows is put back into a restored store.
    Reseed "reseed" None None;
    /// The store drops all leases at once.
    DropLeases "drop-leases" None None;
    /// A process dies; its data directory stays.
    Crash "crash" Node None;
    /// A process dies and its data directory is lost.
    Wipe "wipe" Node None;
    /// A process stops cleanly.
    Stop "stop" Node None;
    /// A second process takes a copy of another one's data directory: A copies B's.
    Copy "copy" Node Node;
    /// A process stands still; its clock does not.
    Freeze "freeze" Node None;
    /// A process stands still and its clock with it, as in a suspended machine. Walks leave it out: it is outside of R2.
    Suspend "suspend" Node None;
    /// A process that stood still goes on.
    Thaw "thaw" Node None;
    /// A process starts: warm after a clean stop, else new.
    Start "start" Node None;
    /// A process whose incarnation is out becomes new.
    Renew "renew" Node None;
}

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    /// What happens.
    pub kind: Kind,
    /// The first number; [`Kind::arguments`] says what it means.
    pub first: u8,
    /// The second number.
    pub second: u8,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        for (argument, number) in self.kind.arguments().into_iter().zip([self.first, self.second]) {
            match argument {
                Argument::None => {}
                Argument::Node => write!(f, " n{number}")?,
                Argument::Key => write!(f, " k{number}")?,
                Argument::Document => write!(f, " d{number}")?,
                Argument::Number => write!(f, " {number}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let word = words.next().ok_or("an empty line is no action")?;
        let kind = Kind::ALL
            .iter()
            .copied()
            .find(|kind| kind.text() == word)
            .ok_or_else(|| format!("no action is named {word}"))?;
        let mut numbers = [0; 2];
        for (argument, number) in kind.arguments().into_iter().zip(&mut numbers) {
            if argument == Argument::None {
                continue;
            }
            let word = words.next().ok_or_else(|| format!("{line}: a number is missing"))?;
            let digits = word.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
            *number = digits.parse().map_err(|_| format!("{line}: {word} is no number"))?;
        }
        Ok(Self { kind, first: numbers[0], second: numbers[1] })
    }
}

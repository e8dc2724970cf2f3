//! The state of the modelled cluster: processes, links, the store, messages in flight, and what callers were told.
//!
//! Everything is a small number in a fixed array and is changed in place; a walk begins with a fresh state.

use crate::document::Document;
use crate::rules::Rules;
use crate::schedule::Setup;
use std::collections::VecDeque;

/// Ids at most.
pub const NODES_MAX: usize = 5;
/// Processes at most: one for each id, and two twins.
pub const PROCESSES_MAX: usize = 7;
/// Keys.
pub const KEYS: usize = 3;

pub(crate) const IDS: usize = NODES_MAX;
/// No incarnation, no document, no value.
pub(crate) const NONE: u8 = u8::MAX;
/// Incarnations are bits of a word, next to the store's.
pub(crate) const INCARNATIONS_MAX: u8 = 31;
pub(crate) const DOCUMENTS_MAX: usize = 60;
const MESSAGES_MAX: usize = 24;

/// aa on a local clock: 10 ticks of the fastest clock, 11 of the slowest.
pub(crate) const AA: i32 = 220;
/// 1.1 × aa on a local clock: 11 ticks of the fastest clock.
pub(crate) const WAIT: i32 = 242;
/// The lease's time to live, in ticks of true time.
pub(crate) const LEASE: i32 = 10;
/// `--mass-absence-after`, on a local clock and in ticks of true time. The ratio to aa is smaller than in the product.
pub(crate) const MASS_AA: i32 = 3 * AA;
pub(crate) const MASS_TICKS: i32 = 33;
/// The same by the fastest clock: from here on R4's exception speaks of who is cut off.
pub(crate) const MASS_TICKS_LEAST: i32 = 30;
/// The "one minute" of mass removal, in ticks of true time.
pub(crate) const MASS_WINDOW: i32 = 60;
/// How many earlier documents a document names; 16 in the product, fewer here so that nodes do fall behind.
pub(crate) const PAST: usize = 4;

/// A time that is long ago on every clock.
pub(crate) const LONG_AGO: i32 = -1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Up,
    Frozen,
    Crashed,
    /// Stopped cleanly: it may start warm.
    Stopped,
}

/// What a node holds of one key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    /// The number of the value, 0 for none. It may be left of a key that moved away.
    pub(crate) value: u16,
    /// The document under which the key left this node and may be handed over.
    pub(crate) left_at: u8,
    /// The document under which this node gained the key and may ask for it.
    pub(crate) gained_at: u8,
    /// Written, deleted, invalidated or asked for here since it was gained.
    pub(crate) claimed: bool,
    /// The ask that is pending, 0 for none, and the oldest stamp that the Get behind it may be told.
    pub(crate) pending: u16,
    pub(crate) pending_floor: u32,
    /// Whether the value came from another node; only counted.
    pub(crate) handed: bool,
}

pub(crate) const EMPTY: Slot = Slot {
    value: 0,
    left_at: NONE,
    gained_at: NONE,
    claimed: false,
    pending: 0,
    pending_floor: 0,
    handed: false,
};

/// A process. `id` never changes, `incarnation` does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pub(crate) id: u8,
    pub(crate) incarnation: u8,
    pub(crate) life: Life,
    pub(crate) clock: i32,
    /// Its machine is suspended, so that the clock stands still too.
    pub(crate) suspended: bool,
    pub(crate) document: u8,
    pub(crate) slots: [Slot; KEYS],
    /// R2: when the answer of each id, and of the store, was asked for, on this clock.
    pub(crate) votes: [i32; IDS + 1],
    /// R3: who is known to have acknowledged the document that this process has, or to be dead.
    pub(crate) acknowledged: u32,
    /// When a majority had, on this clock.
    pub(crate) majority_at: Option<i32>,
    /// Incarnations that ran on this data directory and are dead, as its lock proves.
    pub(crate) dead: u32,
    /// The last sign of each incarnation, on this clock; `LONG_AGO` for one that was not waited for yet.
    pub(crate) signs: [i32; INCARNATIONS_MAX as usize],
    /// When this process last exchanged anything with the store, in true time.
    pub(crate) store_at: i32,
    /// The incarnation whose entries a warm start keeps, until the document names the new one.
    pub(crate) warm_from: u8,
    /// The Set that was checked and is not done yet.
    pub(crate) begun: Option<Begun>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    pub(crate) key: u8,
    pub(crate) stamp: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) from: u8,
    pub(crate) to: u8,
    /// The sender when it sent: who, and what it had acknowledged.
    pub(crate) sender: Sender,
    /// Streams end with the process that they lead to.
    pub(crate) to_incarnation: u8,
    pub(crate) body: Body,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub(crate) id: u8,
    pub(crate) incarnation: u8,
    pub(crate) document: u8,
    pub(crate) dead: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// "Is this the newest that you know?", and when it was asked.
    Ask { asked: i32 },
    /// "It is."
    Newest { document: u8, asked: i32 },
    /// The new owner asks the previous one for a key that it gained under this document.
    HandOverAsk { key: u8, gained_at: u8, number: u16 },
    /// The answer; value 0: it had nothing.
    HandOver { key: u8, number: u16, value: u16 },
    /// The previous owner sends unasked.
    Push { key: u8, value: u16, left_at: u8 },
}

/// The store: one document, leases, and whether it answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Store {
    pub(crate) document: u8,
    pub(crate) up: bool,
    /// Restored from a backup and not put right since.
    pub(crate) restored: bool,
    /// When the lease of each incarnation ends, in true time.
    pub(crate) leases: [i32; INCARNATIONS_MAX as usize],
}

/// An invalidation of everything that is being carried to all members.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invalidation {
    pub(crate) begun: u32,
    pub(crate) incarnation: u8,
    pub(crate) document: u8,
    pub(crate) answered: u8,
    pub(crate) repeated: bool,
}

/// How often things happened. A test asserts that all of it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Gets that began.
    pub reads: u64,
    /// Gets that found a value.
    pub hits: u64,
    /// Hits at a node that gained the key under the document it acts by: after a barrier.
    pub hits_after_barrier: u64,
    /// The same, where the barrier was passed by the wait and not by the previous owner's word.
    pub hits_after_wait: u64,
    /// Hits by callers or nodes whose document is not the newest.
    pub hits_by_old_rings: u64,
    /// Hits on values that another node handed over.
    pub hits_handed_over: u64,
    /// Hits at a node under the first document after a mass removal.
    pub hits_after_mass_removal: u64,
    /// Hits at a process whose id another running process has too.
    pub hits_with_twins: u64,
    /// Hits at a process that started warm.
    pub hits_after_warm_start: u64,
    /// Sets and Deletes that were acknowledged.
    pub writes: u64,
    /// Sets and Deletes that were refused by a node that may not act.
    pub refused: u64,
    /// Answers of previous owners that were installed.
    pub hand_overs: u64,
    /// Pushes that were installed.
    pub pushes: u64,
    /// Invalidations that were answered.
    pub invalidations: u64,
    /// Invalidations that were repeated because the epochs differed.
    pub invalidations_repeated: u64,
    /// Documents written.
    pub documents: u64,
    /// Documents that take out one absent member.
    pub removals: u64,
    /// Documents by the rule of mass removal.
    pub mass_removals: u64,
    /// Of these, ones whose predecessor was not settled.
    pub mass_removals_unsettled: u64,
    /// Documents by which an incarnation took over an id from another one.
    pub replaced: u64,
    /// The same, by another process while the first was still running.
    pub taken_by_twin: u64,
    /// Documents that were written back into a restored store.
    pub written_back: u64,
    /// Warm starts.
    pub warm_starts: u64,
}

pub(crate) struct State {
    pub(crate) rules: Rules,
    pub(crate) setup: Setup,
    pub(crate) now: i32,
    pub(crate) processes: [Process; PROCESSES_MAX],
    pub(crate) count: u8,
    /// Bit b of word a: the link between a and b is cut.
    pub(crate) cuts: [u8; PROCESSES_MAX],
    pub(crate) store_cuts: u8,
    pub(crate) store: Store,
    pub(crate) documents: Vec<Document>,
    pub(crate) messages: VecDeque<Message>,
    pub(crate) incarnations: u8,
    /// The process that last had each incarnation.
    pub(crate) process_of: [u8; INCARNATIONS_MAX as usize],
    /// Ticks in the order of events: real time, finer than `now`.
    pub(crate) stamp: u32,
    /// When each value was acknowledged.
    pub(crate) acknowledged_at: Vec<u32>,
    /// The newest beginning of an acknowledged Set, Delete or Invalidate of each key.
    pub(crate) floors: [u32; KEYS],
    pub(crate) asks: u16,
    pub(crate) invalidations: [Option<Invalidation>; PROCESSES_MAX],
    pub(crate) counts: Counts,
    /// Set when a Get returned a value that had been replaced before the Get began.
    pub(crate) stale: bool,
}

impl State {
    pub(crate) fn new(setup: &Setup, rules: Rules) -> Self {
        let mut state = Self {
            rules,
            setup: *setup,
            now: 0,
            processes: [Process::absent(); PROCESSES_MAX],
            count: setup.nodes + setup.twins,
            cuts: [0; PROCESSES_MAX],
            store_cuts: 0,
            store: Store {
                document: 0,
                up: true,
                restored: false,
                leases: [LONG_AGO; INCARNATIONS_MAX as usize],
            },
            documents: Vec::with_capacity(DOCUMENTS_MAX),
            messages: VecDeque::with_capacity(MESSAGES_MAX),
            incarnations: 0,
            process_of: [NONE; INCARNATIONS_MAX as usize],
            stamp: 0,
            acknowledged_at: Vec::with_capacity(256),
            floors: [0; KEYS],
            asks: 0,
            invalidations: [None; PROCESSES_MAX],
            counts: Counts::default(),
            stale: false,
        };
        state.reset(setup);
        state
    }

    /// The first document and its members; counts stay.
    pub(crate) fn reset(&mut self, setup: &Setup) {
        self.setup = *setup;
        self.now = 0;
        self.count = setup.nodes + setup.twins;
        self.cuts = [0; PROCESSES_MAX];
        self.store_cuts = 0;
        self.store =
            Store { document: 0, up: true, restored: false, leases: [LONG_AGO; INCARNATIONS_MAX as usize] };
        self.process_of = [NONE; INCARNATIONS_MAX as usize];
        self.messages.clear();
        self.documents.clear();
        self.incarnations = 0;
        self.stamp = 0;
        self.acknowledged_at.clear();
        self.acknowledged_at.push(0);
        self.floors = [0; KEYS];
        self.asks = 0;
        self.invalidations = [None; PROCESSES_MAX];
        self.stale = false;
        let mut members = [NONE; IDS];
        for process in 0..usize::from(self.count) {
            self.processes[process] = Process::absent();
            self.processes[process].id = process as u8 % setup.nodes;
        }
        for (process, member) in members.iter_mut().enumerate().take(usize::from(setup.nodes)) {
            let incarnation = self.draw_incarnation(process).expect("a fresh state has incarnations left");
            *member = incarnation;
            self.processes[process].life = Life::Up;
            self.store.leases[usize::from(incarnation)] = LEASE;
        }
        let document = Document::new(NONE, members, 0);
        self.documents.push(document);
        for process in &mut self.processes[..usize::from(setup.nodes)] {
            process.acknowledged = document.voters;
            process.signs[..usize::from(setup.nodes)].fill(0);
        }
    }

    /// A new incarnation for a process; none when a walk has used them up.
    pub(crate) fn draw_incarnation(&mut self, process: usize) -> Option<u8> {
        if self.incarnations == INCARNATIONS_MAX {
            return None;
        }
        let incarnation = self.incarnations;
        self.incarnations += 1;
        self.processes[process].incarnation = incarnation;
        self.process_of[usize::from(incarnation)] = process as u8;
        Some(incarnation)
    }

    pub(crate) fn next_stamp(&mut self) -> u32 {
        self.stamp += 1;
        self.stamp
    }

    pub(crate) fn document(&self, epoch: u8) -> &Document {
        &self.documents[usize::from(epoch)]
    }

    /// Whether a process runs now.
    pub(crate) fn runs(&self, process: usize) -> bool {
        process < usize::from(self.count) && self.processes[process].life == Life::Up
    }

    /// Whether two running processes reach each other.
    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        a != b && self.runs(a) && self.runs(b) && self.cuts[a] & (1 << b) == 0
    }

    /// Whether a running process reaches the store, and gets answers.
    pub(crate) fn store_linked(&self, process: usize) -> bool {
        self.runs(process)
            && self.store.up
            && self.store_cuts & (1 << process) == 0
            && !(self.store.restored && self.rules.has(crate::Rule::RestoreFenced))
    }

    /// The running process with an incarnation. Where a copied directory makes two, it is the one that started last; the
    /// other one is reached by callers that ask it as a node without a ring.
    pub(crate) fn running(&self, incarnation: u8) -> Option<usize> {
        if incarnation == NONE {
            return None;
        }
        let process = usize::from(self.process_of[usize::from(incarnation)]);
        (self.processes[process].incarnation == incarnation && self.runs(process)).then_some(process)
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, body: Body) {
        if self.messages.len() == MESSAGES_MAX {
            self.messages.pop_front();
        }
        let sender = self.sender(from);
        let to_incarnation = self.processes[to].incarnation;
        self.messages.push_back(Message { from: from as u8, to: to as u8, sender, to_incarnation, body });
    }

    pub(crate) fn sender(&self, process: usize) -> Sender {
        let Process { id, incarnation, document, dead, .. } = self.processes[process];
        Sender { id, incarnation, document, dead }
    }
}

impl Process {
    fn absent() -> Self {
        Self {
            id: 0,
            incarnation: NONE,
            life: Life::Crashed,
            clock: 0,
            suspended: false,
            document: 0,
            slots: [EMPTY; KEYS],
            votes: [LONG_AGO; IDS + 1],
            acknowledged: 0,
            majority_at: None,
            dead: 0,
            signs: [LONG_AGO; INCARNATIONS_MAX as usize],
            store_at: 0,
            warm_from: NONE,
            begun: None,
        }
    }

    /// Who was not waited for before has been silent since now, and not since the beginning.
    pub(crate) fn expect_signs(&mut self, document: &Document) {
        for incarnation in document.members.into_iter().filter(|incarnation| *incarnation != NONE) {
            let sign = &mut self.signs[usize::from(incarnation)];
            if *sign == LONG_AGO {
                *sign = self.clock;
            }
        }
    }
}

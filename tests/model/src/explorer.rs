//! Seeded random walks over the enabled actions. The same configuration and seed give the same walks.
//!
//! Each walk draws its own weights (swarm testing, Groce et al., ISSTA 2012): a kind of action is frequent in one walk,
//! rare in the next and left out of a third, so that long runs of one thing happen, which even weights never bring.

use crate::action::{Action, Argument, Kind};
use crate::rules::{Rule, Rules};
use crate::schedule::{Schedule, Setup};
use crate::state::{Counts, KEYS, PROCESSES_MAX, State};

/// Kinds of actions.
const KINDS: usize = Kind::ALL.len();
/// Slots of the table from which a walk draws its kinds.
const TABLE: usize = 512;

/// What to explore.
///
/// # Defaults
/// 4 nodes and a twin, all rules, clocks whose rates differ by 10 % at most, walks of 200 actions.
#[derive(Clone, Debug)]
pub struct Config {
    /// The rules in force.
    pub rules: Rules,
    /// Ids at least, from 2.
    pub nodes_min: u8,
    /// Ids at most, up to 5.
    pub nodes_max: u8,
    /// Second processes at most, up to 2.
    pub twins: u8,
    /// The rates of clocks, in 21sts of true time; each process draws one.
    pub rates: Vec<u8>,
    /// Actions in a walk.
    pub walk: u32,
    /// How frequent each kind is, in the order of [`Kind::ALL`].
    pub weights: [u16; KINDS],
}

impl Default for Config {
    fn default() -> Self {
        let mut weights = [0; KINDS];
        for kind in Kind::ALL {
            weights[*kind as usize] = weight(*kind);
        }
        Self {
            rules: Rules::all(),
            nodes_min: 4,
            nodes_max: 4,
            twins: 1,
            rates: vec![20, 21, 22],
            walk: 200,
            weights,
        }
    }
}

impl Config {
    /// Without a rule, and with more of what shows that it is missing.
    pub fn aimed_at(rule: Rule) -> Self {
        let mut config = Self { rules: Rules::without(rule), ..Self::default() };
        let more: &[Kind] = match rule {
            Rule::VoterIncarnation => &[Kind::Wipe, Kind::Start, Kind::Join, Kind::Isolate],
            Rule::Wait => &[Kind::Isolate, Kind::CutStore, Kind::Weigh],
            Rule::Settled => &[Kind::Weigh, Kind::Join, Kind::Leave, Kind::Isolate],
            Rule::KeptBetween | Rule::GainedDrops | Rule::DirectlyAfter => &[Kind::Weigh],
            Rule::Atomic => &[Kind::BeginSet, Kind::FinishSet, Kind::Weigh, Kind::Deliver],
            Rule::PendingAsk => &[Kind::Weigh, Kind::Deliver, Kind::TimeOut, Kind::Evict],
            Rule::InvalidationBarrier | Rule::InvalidationRepeated => {
                &[Kind::Invalidate, Kind::Carry, Kind::Weigh, Kind::Leave]
            }
            Rule::MassEverybody | Rule::MassPredecessors | Rule::MassException | Rule::MassLease => {
                &[Kind::Tick, Kind::MassRemove, Kind::Isolate, Kind::CutStore, Kind::DropLeases]
            }
            Rule::RestoreFenced | Rule::RestoreEmpties => {
                &[Kind::Restore, Kind::WriteBack, Kind::Reseed, Kind::Isolate]
            }
            Rule::LockOfCopy => &[Kind::Join, Kind::Copy, Kind::Start],
            Rule::WarmRenamed => &[Kind::Stop, Kind::Start, Kind::Copy],
        };
        for kind in more {
            config.weights[*kind as usize] *= 4;
        }
        if matches!(
            rule,
            Rule::MassEverybody | Rule::MassPredecessors | Rule::MassException | Rule::MassLease
        ) {
            config.walk = 100;
            for kind in NO_PART_IN_MASS_REMOVAL {
                config.weights[*kind as usize] = 0;
            }
        }
        if rule == Rule::MassPredecessors {
            // It takes five voters, a removal, and a mass removal right after it.
            config.nodes_max = 5;
            config.weights[Kind::Remove as usize] *= 8;
        }
        // Schedules are easier to read without what they do not need.
        if !matches!(rule, Rule::RestoreFenced | Rule::RestoreEmpties) {
            config.weights[Kind::Restore as usize] = 0;
        }
        if !matches!(rule, Rule::WarmRenamed | Rule::LockOfCopy) {
            config.weights[Kind::Copy as usize] = 0;
        }
        config
    }
}

/// What only lengthens the way to a mass removal.
const NO_PART_IN_MASS_REMOVAL: &[Kind] = &[
    Kind::Ask,
    Kind::Deliver,
    Kind::DeliverNewest,
    Kind::Lose,
    Kind::DeleteVia,
    Kind::BeginSet,
    Kind::Evict,
    Kind::Push,
    Kind::Invalidate,
    Kind::Leave,
    Kind::Weigh,
    Kind::Stop,
    Kind::Wipe,
    Kind::StoreDown,
    Kind::Freeze,
];

/// How frequent a kind is unless told otherwise.
const fn weight(kind: Kind) -> u16 {
    match kind {
        Kind::GetRing | Kind::GetVia | Kind::Round => 60,
        Kind::SetRing | Kind::SetVia | Kind::Talk | Kind::Deliver => 40,
        Kind::Tick => 24,
        Kind::Weigh | Kind::Carry | Kind::ReadStore => 12,
        Kind::Join | Kind::Start => 10,
        Kind::Ask
        | Kind::DeleteVia
        | Kind::BeginSet
        | Kind::FinishSet
        | Kind::Evict
        | Kind::Push
        | Kind::DeliverNewest => 8,
        Kind::Heal
        | Kind::HealAll
        | Kind::Renew
        | Kind::AskOlder
        | Kind::Thaw
        | Kind::StoreUp
        | Kind::Reseed => 6,
        Kind::Leave
        | Kind::Remove
        | Kind::MassRemove
        | Kind::Invalidate
        | Kind::TimeOut
        | Kind::JoinTwo
        | Kind::WriteBack => 6,
        Kind::Isolate | Kind::CutStore | Kind::Crash | Kind::Stop | Kind::Copy | Kind::Lose => 2,
        Kind::Cut | Kind::Wipe | Kind::Freeze | Kind::StoreDown | Kind::DropLeases | Kind::Restore => 1,
        Kind::Suspend => 0,
    }
}

/// What a search found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Exploration {
    /// Actions that were enabled and performed.
    pub steps: u64,
    /// Walks.
    pub walks: u64,
    /// Gets that began; also in `counts`.
    pub reads: u64,
    /// Gets that found a value; also in `counts`.
    pub hits: u64,
    /// How often things happened.
    pub counts: Counts,
    /// How often each kind of action was performed, in the order of [`Kind::ALL`].
    pub performed: Vec<u64>,
    /// The walk that ended in a stale read, if one did, as it was and not shrunk.
    pub stale: Option<Schedule>,
}

impl Exploration {
    /// How often a kind of action was performed.
    pub fn performed(&self, kind: Kind) -> u64 {
        self.performed[kind as usize]
    }
}

/// What a replay came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// The index of the action at which a Get was told a stale value.
    pub stale: Option<usize>,
    /// Actions that were enabled.
    pub performed: usize,
    /// How often things happened.
    pub counts: Counts,
}

/// Walks at random until `steps` actions were performed, or a stale read was found.
pub fn explore(config: &Config, seed: u64, steps: u64) -> Exploration {
    let mut random = Random(seed);
    let mut state = State::new(&Setup::default(), config.rules);
    let mut found = Exploration { performed: vec![0; KINDS], ..Exploration::default() };
    let mut actions = Vec::with_capacity(config.walk as usize);
    while found.steps < steps {
        let setup = draw_setup(config, &mut random);
        let table = draw_table(config, &mut random);
        state.reset(&setup);
        actions.clear();
        found.walks += 1;
        // Tries that are not enabled are bounded too: a walk may run into a corner.
        for _ in 0..config.walk * 4 {
            let kind = table[random.below(TABLE)];
            let Some(action) = draw_action(kind, &state, &mut random) else { continue };
            if !state.apply(action) {
                continue;
            }
            found.steps += 1;
            found.performed[kind as usize] += 1;
            actions.push(action);
            if state.stale {
                found.stale = Some(Schedule { comment: Vec::new(), setup, actions: actions.clone() });
                break;
            }
            if actions.len() >= config.walk as usize {
                break;
            }
        }
        if state.stale {
            break;
        }
    }
    found.counts = state.counts;
    found.reads = state.counts.reads;
    found.hits = state.counts.hits;
    found
}

/// Performs the actions of a schedule under a set of rules; one that is not enabled is skipped.
pub fn replay(schedule: &Schedule, rules: Rules) -> Outcome {
    let mut state = State::new(&schedule.setup, rules);
    let mut performed = 0;
    let mut stale = None;
    for (index, action) in schedule.actions.iter().enumerate() {
        performed += usize::from(state.apply(*action));
        if state.stale {
            stale = Some(index);
            break;
        }
    }
    Outcome { stale, performed, counts: state.counts }
}

fn draw_setup(config: &Config, random: &mut Random) -> Setup {
    let nodes = config.nodes_min + random.below(usize::from(config.nodes_max - config.nodes_min) + 1) as u8;
    let twins = random.below(usize::from(config.twins) + 1) as u8;
    let mut rates = [21; PROCESSES_MAX];
    for rate in &mut rates {
        *rate = config.rates[random.below(config.rates.len())];
    }
    Setup { nodes, twins, rates }
}

fn draw_table(config: &Config, random: &mut Random) -> [Kind; TABLE] {
    let mut weights = config.weights.map(u32::from);
    for weight in &mut weights {
        *weight *= [0, 2, 2, 2, 4, 8][random.below(6)];
    }
    // A walk without time or questions comes to nothing.
    for kind in [Kind::Round, Kind::GetVia, Kind::SetVia, Kind::Tick] {
        weights[kind as usize] = weights[kind as usize].max(u32::from(config.weights[kind as usize]));
    }
    let total: u32 = weights.iter().sum();
    let mut table = [Kind::Tick; TABLE];
    for kind in &mut table {
        let mut drawn = random.below(total as usize) as u32;
        for (candidate, weight) in Kind::ALL.iter().zip(weights) {
            if drawn < weight {
                *kind = *candidate;
                break;
            }
            drawn -= weight;
        }
    }
    table
}

fn draw_action(kind: Kind, state: &State, random: &mut Random) -> Option<Action> {
    let mut action = Action { kind, first: 0, second: 0 };
    if matches!(kind, Kind::Deliver | Kind::DeliverNewest | Kind::Lose) {
        if state.messages.is_empty() {
            return None;
        }
        let message = &state.messages[random.below(state.messages.len())];
        (action.first, action.second) = (message.from, message.to);
        return Some(action);
    }
    let arguments = kind.arguments();
    if let Some(process) = draw_busy(kind, state, random)? {
        action.first = process;
        action.second = random.below(usize::from(state.count)) as u8;
        return Some(action);
    }
    for (argument, number) in arguments.into_iter().zip([&mut action.first, &mut action.second]) {
        *number = match argument {
            Argument::None => 0,
            Argument::Node => random.below(usize::from(state.count)) as u8,
            Argument::Key => random.below(KEYS) as u8,
            // Old rings are rarer the older they are.
            Argument::Document => {
                let newest = state.documents.len() as u8 - 1;
                newest.saturating_sub([0, 0, 0, 1, 1, 2, 3, 4][random.below(8)])
            }
            Argument::Number if kind == Kind::Tick => [1, 1, 1, 2, 2, 5, 11, 12][random.below(8)],
            Argument::Number => random.below(4) as u8,
        };
    }
    Some(action)
}

/// Kinds that make sense only for a process that has begun something: such a process, or no action at all.
fn draw_busy(kind: Kind, state: &State, random: &mut Random) -> Option<Option<u8>> {
    let busy = |process: &usize| match kind {
        Kind::Carry => state.invalidations[*process].is_some(),
        _ => state.processes[*process].begun.is_some(),
    };
    if !matches!(kind, Kind::Carry | Kind::FinishSet) {
        return Some(None);
    }
    let from = random.below(usize::from(state.count));
    let process =
        (0..usize::from(state.count)).map(|step| (from + step) % usize::from(state.count)).find(busy)?;
    Some(Some(process as u8))
}

/// splitmix64 (Steele, Lea, Flood, OOPSLA 2014): small, and good enough to draw actions.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (((self.next() >> 32) * bound as u64) >> 32) as usize
    }
}

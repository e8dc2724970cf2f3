//! One action on the state. Every action says whether it was enabled; one that was not has changed nothing that matters.

use crate::action::{Action, Kind};
use crate::calls::Operation;
use crate::state::{Life, Message, State};

impl State {
    /// Performs an action if it is enabled.
    pub(crate) fn apply(&mut self, action: Action) -> bool {
        let (a, b) = (usize::from(action.first), usize::from(action.second));
        match action.kind {
            Kind::Tick => self.tick(action.first),
            Kind::Talk => self.talk(a, b),
            Kind::Round => self.round(a),
            Kind::Ask => self.ask(a, b),
            Kind::Deliver => self.take(a, b, false).map(|message| self.receive(message)).is_some(),
            Kind::DeliverNewest => self.take(a, b, true).map(|message| self.receive(message)).is_some(),
            Kind::Lose => self.take(a, b, false).is_some(),
            Kind::ReadStore => self.read_store(a),
            Kind::GetRing => self.call_by_ring(Operation::Get, a, action.second),
            Kind::GetVia => self.call_via(Operation::Get, a, b),
            Kind::SetRing => self.call_by_ring(Operation::Set, a, action.second),
            Kind::SetVia => self.call_via(Operation::Set, a, b),
            Kind::DeleteVia => self.call_via(Operation::Delete, a, b),
            Kind::BeginSet => self.begin_set(a, b),
            Kind::FinishSet => self.finish_set(a),
            Kind::Evict => self.evict(a, b),
            Kind::TimeOut => self.time_out(a, b),
            Kind::Push => self.push(a, b),
            Kind::AskOlder => self.ask_older(a, b),
            Kind::Invalidate => self.invalidate(a),
            Kind::Carry => self.carry(a, b),
            Kind::Join => self.join(a, None),
            Kind::JoinTwo => a != b && self.join(a, Some(b)),
            Kind::Leave => self.leave(a),
            Kind::Weigh => self.weigh(a, action.second),
            Kind::Remove => self.remove(a, b),
            Kind::MassRemove => self.mass_remove(a),
            Kind::WriteBack => self.write_back(a),
            Kind::Restore => self.restore(action.first),
            Kind::Reseed => self.reseed(),
            Kind::Copy => self.copy(a, b),
            Kind::Start => self.start(a),
            Kind::Renew => self.renew(a),
            Kind::Crash => self.end(a, Life::Crashed),
            Kind::Wipe => self.wipe(a),
            Kind::Stop => self.end(a, Life::Stopped),
            _ => self.disturb(action.kind, a, b),
        }
    }

    /// Links, the store, and processes that stand still.
    fn disturb(&mut self, kind: Kind, a: usize, b: usize) -> bool {
        let everybody = ((1_u16 << self.count) - 1) as u8;
        match kind {
            Kind::Cut => self.cut(a, 1 << b),
            Kind::Isolate => self.cut(a, everybody),
            Kind::CutStore => replace(&mut self.store_cuts, |cuts| cuts | 1 << a),
            Kind::Heal => {
                self.store_cuts &= !(1 << a);
                for cuts in &mut self.cuts {
                    *cuts &= !(1 << a);
                }
                self.cuts[a] = 0;
                true
            }
            Kind::HealAll => {
                self.cuts.fill(0);
                self.store_cuts = 0;
                true
            }
            Kind::StoreDown => replace(&mut self.store.up, |_| false),
            Kind::StoreUp => replace(&mut self.store.up, |_| true),
            Kind::DropLeases => {
                for lease in &mut self.store.leases {
                    *lease = (*lease).min(self.now);
                }
                self.store.up
            }
            Kind::Freeze | Kind::Suspend if self.processes[a].life == Life::Up => {
                self.processes[a].suspended = kind == Kind::Suspend;
                replace(&mut self.processes[a].life, |_| Life::Frozen)
            }
            Kind::Thaw if self.processes[a].life == Life::Frozen => {
                self.processes[a].suspended = false;
                replace(&mut self.processes[a].life, |_| Life::Up)
            }
            _ => false,
        }
    }

    fn tick(&mut self, ticks: u8) -> bool {
        let ticks = i32::from(ticks);
        self.now += ticks;
        for (process, rate) in self.processes.iter_mut().zip(self.setup.rates) {
            if !process.suspended {
                process.clock += ticks * i32::from(rate);
            }
        }
        true
    }

    fn cut(&mut self, process: usize, peers: u8) -> bool {
        let peers = peers & !(1 << process);
        for (peer, cuts) in self.cuts.iter_mut().enumerate() {
            if peers & (1 << peer) != 0 {
                *cuts |= 1 << process;
            }
        }
        replace(&mut self.cuts[process], |cuts| cuts | peers)
    }

    fn take(&mut self, from: usize, to: usize, newest: bool) -> Option<Message> {
        let between = |message: &Message| usize::from(message.from) == from && usize::from(message.to) == to;
        let place = if newest {
            self.messages.iter().rposition(between)
        } else {
            self.messages.iter().position(between)
        };
        self.messages.remove(place?)
    }
}

/// Changes a field, and says whether it is another than before.
fn replace<T: Copy + PartialEq>(field: &mut T, change: impl FnOnce(T) -> T) -> bool {
    let before = *field;
    *field = change(before);
    *field != before
}

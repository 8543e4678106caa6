//! The faults of a run: which, where, when, how long. A function of the seed alone.

use std::time::Duration;

use crate::matrices::Random;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `kill -9`, and a restart with the same data directory.
    Kill,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// Two nodes do not reach each other.
    Partition,
    /// One node does not reach another, which reaches it.
    OneWay,
    /// A node's network interface is down.
    LinkDown,
    /// One packet in 20 of a node's is lost, each way.
    Loss5,
    /// Three packets in ten of a node's are lost, each way.
    Loss30,
    /// `kill -9` of all nodes at once, and a restart of all.
    PowerCut,
}

/// How often each kind is drawn, and how long it lasts, in milliseconds.
const KINDS: [(Kind, u64, [u64; 2]); 8] = [
    (Kind::Kill, 24, [100, 5_000]),
    (Kind::Pause, 16, [200, 6_000]),
    (Kind::Partition, 14, [500, 8_000]),
    (Kind::OneWay, 14, [500, 8_000]),
    (Kind::LinkDown, 12, [300, 5_000]),
    (Kind::Loss5, 9, [2_000, 9_000]),
    (Kind::Loss30, 9, [2_000, 9_000]),
    (Kind::PowerCut, 2, [100, 1_500]),
];
/// Milliseconds from the beginning of one fault to that of the next.
const PAUSES: [u64; 2] = [200, 2_400];

impl Kind {
    /// All kinds.
    pub fn all() -> impl Iterator<Item = Kind> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    /// How people call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9 and restart",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::OneWay => "one-way drop",
            Kind::LinkDown => "link down",
            Kind::Loss5 => "5 % loss",
            Kind::Loss30 => "30 % loss",
            Kind::PowerCut => "power cut of all",
        }
    }

    fn needs_other(self) -> bool {
        matches!(self, Kind::Partition | Kind::OneWay)
    }

    /// Whether it is about a process; else it is about the network.
    fn is_of_process(self) -> bool {
        matches!(self, Kind::Kill | Kind::Pause | Kind::PowerCut)
    }
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Which node.
    pub node: usize,
    /// The other node of a partition; of a one-way drop, the one that is not reached. Else the same.
    pub other: usize,
    /// When it begins, from the beginning of the run.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
}

impl Fault {
    /// Whether it may separate these two nodes, or stop one of them.
    pub fn concerns(&self, a: usize, b: usize) -> bool {
        match self.kind {
            Kind::PowerCut => true,
            Kind::Partition | Kind::OneWay => [(a, b), (b, a)].contains(&(self.node, self.other)),
            _ => self.node == a || self.node == b,
        }
    }

    fn end(&self) -> Duration {
        self.at + self.lasts
    }

    /// Whether both can not be at once: of one process there is one fault, and one of its network, but
    /// any number of cuts between different pairs.
    fn excludes(&self, other: &Fault) -> bool {
        if self.end() < other.at || other.end() < self.at {
            return false;
        }
        let same = self.kind.is_of_process() == other.kind.is_of_process();
        let all = [self.kind, other.kind].contains(&Kind::PowerCut);
        let pair = |fault: &Fault| {
            let (a, b) = (fault.node, fault.other);
            (a.min(b), a.max(b))
        };
        same && (all || pair(self) == pair(other))
    }
}

/// `count` faults among `nodes` nodes, in the order in which they begin.
pub fn draw(seed: u64, count: usize, nodes: usize) -> Vec<Fault> {
    let mut random = Random(seed);
    let mut plan: Vec<Fault> = Vec::with_capacity(count);
    let mut at = Duration::from_millis(1_000);
    while plan.len() < count {
        let fault = one(&mut random, at, nodes);
        if plan.iter().any(|earlier| earlier.excludes(&fault)) {
            // Drawn again a little later, so that it ends in the worst case too.
            at += Duration::from_millis(20);
            continue;
        }
        plan.push(fault);
        at += Duration::from_millis(between(&mut random, PAUSES));
    }
    plan
}

fn one(random: &mut Random, at: Duration, nodes: usize) -> Fault {
    let total: u64 = KINDS.iter().map(|(_, weight, _)| weight).sum();
    let mut left = random.bits() % total;
    let drawn = KINDS.iter().find(|(_, weight, _)| {
        let here = left < *weight;
        left = left.saturating_sub(*weight);
        here
    });
    let &(kind, _, lasts) = drawn.expect("less than the sum of the weights");
    let node = random.bits() as usize % nodes;
    let other = (node + 1 + random.bits() as usize % (nodes - 1)) % nodes;
    Fault {
        kind,
        node,
        other: if kind.needs_other() { other } else { node },
        at,
        lasts: Duration::from_millis(between(random, lasts)),
    }
}

fn between(random: &mut Random, [least, most]: [u64; 2]) -> u64 {
    least + random.bits() % (most - least + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_function_of_the_seed_and_has_all_kinds() {
        let plan = draw(7, 200, 5);
        assert_eq!(plan, draw(7, 200, 5));
        assert_ne!(plan, draw(8, 200, 5));
        for kind in Kind::all() {
            assert!(plan.iter().any(|fault| fault.kind == kind), "{kind:?}");
        }
        assert!(plan.is_sorted_by_key(|fault| fault.at));
        for (at, fault) in plan.iter().enumerate() {
            assert!(plan[..at].iter().all(|other| !other.excludes(fault)));
            assert_eq!(fault.node != fault.other, fault.kind.needs_other());
        }
    }
}

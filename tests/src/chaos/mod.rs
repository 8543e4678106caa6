//! Real nodes under real faults: five processes in network namespaces on one bridge, jobs all the time, faults
//! drawn by a seed. Then everything is mended, and each job that was acknowledged must be done at every node, with
//! the right result.
//!
//! The seed decides the faults and the products, not the instants at which threads run: the same seed is the same
//! story, but not the same trace.

pub mod cases;
pub mod end;
pub mod load;
pub mod plan;
pub mod report;
pub mod room;
pub mod takeovers;
pub mod trail;

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use cases::Cases;
use load::Load;
use plan::Kind;
use report::Report;
use room::{NAMES, Room};

/// How often somebody is told how far it is.
const TOLD: Duration = Duration::from_secs(1);

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// What everything is drawn by.
    pub seed: u64,
    /// How many faults.
    pub faults: usize,
}

/// One run; the logs of the nodes are to be in `logs`. `tell` is told how far it is, now and then.
///
/// # Panics
/// When the nodes do not come up, or are not together again when everything is mended.
pub fn run(settings: Settings, logs: &Path, tell: impl Fn(&str) + Sync) -> Report {
    let begin = Instant::now();
    let plan = plan::draw(settings.seed, settings.faults, NAMES.len());
    let cases = Cases::draw(settings.seed);
    let mut room = Room::open(logs, &[]);
    let devices = ids(&room);
    let load = Load::default();
    let together = Barrier::new(NAMES.len() + 1);
    thread::scope(|scope| {
        for (node, api) in room.apis().to_vec().into_iter().enumerate() {
            let (load, cases, together) = (&load, &cases, &together);
            scope.spawn(move || load.feed(cases, &api, node, settings.seed, together));
        }
        // Else the threads would never end.
        let _stop = Stop(&load);
        together.wait();
        carry_out(&mut room, &plan, &load, &tell);
        tell("everything is mended");
        room.heal();
    });
    let accepted = load.accepted();
    let all: Vec<usize> = (0..NAMES.len()).collect();
    let ends = end::judge(&accepted, &cases, room.apis(), &all, |at| {
        tell(&format!("{at} of {} jobs checked", accepted.len()));
    });
    for node in 0..NAMES.len() {
        room.notice(node);
    }
    let logs: Vec<_> = all.iter().map(|&node| room.log(node)).collect();
    let findings = trail::read(&logs, &devices, room.episodes());
    let count = |kind: Kind| plan.iter().filter(|fault| fault.kind == kind).count();
    let surprises = room.surprises().iter().cloned();
    Report {
        seed: settings.seed,
        seconds: begin.elapsed().as_secs_f64(),
        faults: Kind::all().map(|kind| (kind, count(kind))).collect(),
        accepted: accepted.len(),
        done: ends.done.len(),
        takeovers: takeovers::find(&ends.done, &devices, room.episodes(), &findings.first_lease),
        wrong: ends.wrong,
        lost: ends.lost,
        repeated: findings.repeated,
        inherited: findings.inherited,
        surprises: surprises
            .chain(findings.panics)
            .chain(load.refused())
            .collect(),
    }
}

/// Stops the load when it is dropped, also by a panic.
struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn carry_out(room: &mut Room, plan: &[plan::Fault], load: &Load, tell: &impl Fn(&str)) {
    // Ends before beginnings of the same instant.
    let begins = plan.iter().map(|fault| (fault.at, true, *fault));
    let ends = plan.iter().map(|f| (f.at + f.lasts, false, *f));
    let mut steps: Vec<_> = begins.chain(ends).collect();
    steps.sort_by_key(|(at, begins, _)| (*at, *begins));
    let (begin, mut told, mut begun) = (Instant::now(), Instant::now(), 0);
    for (at, begins, fault) in steps {
        loop {
            let left = at.saturating_sub(begin.elapsed());
            if told.elapsed() >= TOLD {
                told = Instant::now();
                let (accepted, ended) = load.counts();
                tell(&format!(
                    "{begun} of {} faults, {accepted} jobs accepted, {ended} ended",
                    plan.len()
                ));
                (0..NAMES.len()).for_each(|node| room.notice(node));
            }
            if left.is_zero() {
                break;
            }
            // Nothing is waited for: the instants of the faults are what is drawn.
            thread::sleep(left.min(TOLD));
        }
        if begins {
            begun += 1;
            room.begin(fault);
        } else {
            room.end(fault);
        }
    }
}

/// The ids of the nodes' devices.
///
/// # Panics
/// When they are not together.
pub fn ids(room: &Room) -> Vec<String> {
    let devices = room.apis()[0].devices();
    let id = |name: &&str| {
        let own = devices.iter().find(|device| device["name"] == **name);
        let id = own.and_then(|device| device["device"].as_str());
        id.expect("all nodes are together").to_owned()
    };
    NAMES.iter().map(id).collect()
}

//! Ways in which other programs lose jobs, played through; what happens is kept in
//! `scenarios/*.txt`. A difference there is to be understood before it is accepted with
//! `GEMMESH_BLESS=1`.

use std::path::Path;

use gemmesh_protocol::id::JobId;
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::status::JobState;
use gemmesh_protocol::time::Span;
use gemmesh_tests::sim::faults::Class;
use gemmesh_tests::sim::{Host, Power, Sim, Spec};

#[test]
fn an_election_clock_that_is_lost_on_restart() {
    // The winner dies as soon as its epoch is durable, and comes back without any memory but its
    // disk: it must neither act on that epoch nor claim it a second time.
    let (mut sim, job) = mesh(1);
    run_until(&mut sim, |sim| {
        copies(sim, job) == 3 && done(sim, 0, job) > 2
    });
    sim.crash(0, Class::Crash, None);
    run_until(&mut sim, |sim| highest(sim, job) == 2);
    let winner = (1..3).find(|at| epoch(sim.hosts.get(*at), job) == 2);
    let winner = winner.expect("one of them claimed");
    sim.crash(winner, Class::Crash, None);
    run_until(&mut sim, |sim| highest(sim, job) == 3);
    sim.start(winner);
    check(sim, job, JobState::Done, "election_clock");
}

#[test]
fn a_stale_coordinator_that_wants_its_job_back() {
    // It stood still while another took over; what it says of the old epoch moves nothing.
    let (mut sim, job) = mesh(2);
    run_until(&mut sim, |sim| {
        copies(sim, job) == 3 && done(sim, 0, job) > 2
    });
    sim.pause_for(0, 8_000_000);
    run_until(&mut sim, |sim| highest(sim, job) == 2);
    check(sim, job, JobState::Done, "stale_coordinator");
}

#[test]
fn an_old_log_that_is_replayed_after_a_restart() {
    // A backup misses the end of a job, and starts again with a log in which it is running.
    let (mut sim, job) = mesh(3);
    run_until(&mut sim, |sim| {
        copies(sim, job) == 3 && done(sim, 0, job) > 2
    });
    sim.crash(2, Class::Crash, None);
    sim.run(Span::from_millis(500), |_| false);
    assert!(sim.cancel(job));
    sim.run(Span::from_secs(2), |_| false);
    sim.start(2);
    check(sim, job, JobState::Cancelled, "old_log");
}

#[test]
fn a_job_that_is_pending_when_its_coordinator_dies() {
    // Nothing is computed yet; the backups only know that there is such a job.
    let (mut sim, job) = mesh(14);
    run_until(&mut sim, |sim| copies(sim, job) > 1 && able(sim, job) > 1);
    assert_eq!(done(&sim, 0, job), 0);
    sim.crash(0, Class::Crash, None);
    check(sim, job, JobState::Done, "pending_job");
}

#[test]
fn two_nodes_that_both_win() {
    // The coordinator dies while its backups can not speak: each continues the job alone.
    let (mut sim, job) = mesh(5);
    run_until(&mut sim, |sim| {
        copies(sim, job) == 3 && done(sim, 0, job) > 2
    });
    sim.partition(&[1], 16_000_000);
    sim.crash(0, Class::Crash, None);
    run_until(&mut sim, |sim| {
        let hosts = sim.hosts.iter();
        hosts.filter(|host| epoch(Some(host), job) == 2).count() == 2
    });
    check(sim, job, JobState::Done, "two_winners");
}

#[test]
fn a_result_that_only_one_node_has() {
    // Done alone; others come later, and then the one that computed it dies.
    let mut sim = Sim::new(14);
    let alone = sim.add_node(spec());
    let job = sim.submit_as(alone, KernelClass::Separate, [512, 300, 512], Some(256));
    run_until(&mut sim, |sim| sim.all_ended());
    for _ in 0..2 {
        let other = sim.add_node(spec());
        sim.hint(other, alone, true);
    }
    run_until(&mut sim, |sim| whole(sim, job) > 1);
    sim.crash(alone, Class::Crash, None);
    check(sim, job, JobState::Done, "lonely_result");
}

#[test]
fn an_end_that_the_new_coordinator_hears_of_but_not_its_followers() {
    // On one side of a partition the job ends, on the other a slow node takes over. When both meet, its
    // follower hears of the end too, although it had a coordinator that it could hear all the time.
    let mut sim = Sim::new(7);
    let fast = Spec {
        mflops: 2_000.0,
        ..spec()
    };
    add_nodes(&mut sim, &[fast, spec(), spec(), fast]);
    let job = sim.submit_as(0, KernelClass::Separate, [2_048, 1_000, 2_048], Some(256));
    run_until(&mut sim, |sim| {
        copies(sim, job) == 4 && able(sim, job) == 4 && done(sim, 0, job) > 2
    });
    sim.partition(&[1, 2], 4_000_000);
    run_until(&mut sim, |sim| highest(sim, job) == 2);
    run_until(&mut sim, |sim| sim.hosts[0].disk.rows[&job].ended.is_some());
    check(sim, job, JobState::Done, "followers");
}

// -- helpers --

fn spec() -> Spec {
    Spec {
        mflops: 200.0,
        ..Spec::default()
    }
}

/// Three nodes, and a job of the first that takes some seconds.
fn mesh(seed: u64) -> (Sim, JobId) {
    let mut sim = Sim::new(seed);
    add_nodes(&mut sim, &[spec(); 3]);
    let job = sim.submit_as(0, KernelClass::Separate, [1_024, 500, 1_024], Some(256));
    run_until(&mut sim, |sim| sim.jobs[&job].acknowledged.is_some());
    (sim, job)
}

/// Nodes that know each other.
fn add_nodes(sim: &mut Sim, specs: &[Spec]) {
    for spec in specs {
        let node = sim.add_node(*spec);
        for other in 0..node {
            sim.hint(node, other, true);
        }
    }
    run_until(sim, |sim| {
        (0..specs.len()).all(|node| sim.engine(node).peers().count() + 1 == specs.len())
    });
}

fn run_until(sim: &mut Sim, done: impl FnMut(&Sim) -> bool) {
    assert!(sim.run(Span::from_secs(60), done), "{:#?}", sim.story);
}

/// Nodes that have the job.
fn copies(sim: &Sim, job: JobId) -> usize {
    let hosts = sim.hosts.iter();
    hosts
        .filter(|host| host.disk.rows.contains_key(&job))
        .count()
}

/// Nodes that could continue it.
fn able(sim: &Sim, job: JobId) -> usize {
    let hosts = sim.hosts.iter();
    hosts.filter(|host| host.disk.can_continue(job)).count()
}

/// Nodes that have the whole result.
fn whole(sim: &Sim, job: JobId) -> usize {
    let rows = sim.hosts.iter().filter_map(|host| host.disk.rows.get(&job));
    rows.filter(|row| row.ended.is_some() && row.is_whole())
        .count()
}

/// Tiles that are durable on a node.
fn done(sim: &Sim, host: usize, job: JobId) -> usize {
    let row = sim.hosts[host].disk.rows.get(&job);
    row.map_or(0, |row| row.held.len())
}

/// The epoch on a node's disk.
fn epoch(host: Option<&Host>, job: JobId) -> u64 {
    let row = host.and_then(|host| host.disk.rows.get(&job));
    row.filter(|row| row.coordinated)
        .map_or(0, |row| row.epoch.counter)
}

fn highest(sim: &Sim, job: JobId) -> u64 {
    let hosts = sim.hosts.iter();
    hosts.map(|host| epoch(Some(host), job)).max().unwrap_or(0)
}

/// Every running node agrees in the end, and all happened as it is written down.
fn check(mut sim: Sim, job: JobId, state: JobState, name: &str) {
    run_until(&mut sim, |sim| {
        let stopped = |host: &Host| matches!(host.power, Power::Down | Power::Off);
        let mut live = sim.hosts.iter().filter(|host| !stopped(host));
        live.all(|host| {
            let row = host.disk.rows.get(&job);
            let ended = row.and_then(|row| row.ended.as_ref());
            let right = row.is_some_and(|row| state != JobState::Done || row.is_whole());
            host.is_on() && ended.is_some_and(|status| status.state == state) && right
        })
    });
    assert_eq!(sim.coordinators(job).count(), 0);
    let found = sim.story.join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let path = path.join(name).with_extension("txt");
    if std::env::var_os("GEMMESH_BLESS").is_some() {
        std::fs::write(&path, &found).expect("the golden trace can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, found, "{}", path.display());
}

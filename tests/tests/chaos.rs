//! Real nodes under real faults, in short; `make chaos` does more of it. And that jobs do not wait for each other's
//! elections.
#![cfg(target_os = "linux")]

use std::sync::{Barrier, Mutex, MutexGuard};
use std::thread;

use gemmesh_tests::chaos::cases::Cases;
use gemmesh_tests::chaos::end::{self, Ends};
use gemmesh_tests::chaos::load::Accepted;
use gemmesh_tests::chaos::room::{NAMES, Room};
use gemmesh_tests::chaos::{self, Settings};
use gemmesh_tests::node::JOB_LIMIT;
use gemmesh_tests::wait::until;
use gemmesh_tests::{netns, root};
use serde_json::Value;

#[test]
fn jobs_are_right_and_none_is_lost_under_faults() {
    let Some(_turn) = turn() else { return };
    let seed = std::env::var("CHAOS_SEED").ok();
    let seed = seed.map_or(20, |seed| seed.parse().expect("a number"));
    let settings = Settings { seed, faults: 20 };
    eprintln!("CHAOS_SEED={seed}; more of it: make chaos SEED={seed}");
    let report = chaos::run(settings, &root().join("target/chaos/test"), |_| {});
    eprintln!("{}", report.text());
    assert!(report.is_good(), "{}", report.text());
    assert!(report.accepted >= 20, "{}", report.text());
}

/// With one backup for each job, a coordinator and its job's backup die: that job can only wait for one of them.
/// All others end meanwhile, those that another node takes over too; and this one when its backup is back.
#[test]
fn twenty_jobs_at_once_end_and_none_waits_for_the_election_of_another() {
    let Some(_turn) = turn() else { return };
    let logs = root().join("target/chaos/elections");
    let mut room = Room::open(&logs, &["--backups=1"]);
    let devices = chaos::ids(&room);
    let cases = Cases::draw(2);
    let accepted = submit_at_once(&room, &cases);
    assert_eq!(accepted.len(), 20);

    // The first node is going to be gone for good: others must be able to go on with all of its jobs.
    let begun = until("the first node's jobs to have a backup", JOB_LIMIT, || {
        let own = accepted.iter().filter(|job| job.node == 0);
        let jobs: Vec<Value> = own.map(|job| room.apis()[0].job(&job.job)).collect();
        let safe = jobs.iter().all(|job| number(job, "safe_copies") == 1);
        safe.then_some(jobs.clone()).ok_or(format!("{jobs:#?}"))
    });
    let open = begun.iter().filter(|job| job["state"] != "done");
    let left = |job: &&Value| number(job, "tiles_total") - number(job, "tiles_done");
    let waits = open.max_by_key(left).expect("the jobs are long enough");
    let backup = devices.iter().position(|id| waits["backups"][0] == **id);
    let backup = backup.expect("a node of ours");
    let dead = [0, backup];
    let living: Vec<usize> = (0..NAMES.len())
        .filter(|node| !dead.contains(node))
        .collect();
    // Who could be without anybody to go on with it.
    let stuck = |job: &&Accepted| {
        let status = room.apis()[job.node].job(&job.job);
        let other = devices.iter().position(|id| status["backups"][0] == **id);
        let other = other.filter(|_| number(&status, "safe_copies") == 1);
        dead.contains(&job.node) && other.is_none_or(|other| dead.contains(&other))
    };
    let (stuck, free): (Vec<&Accepted>, Vec<&Accepted>) = accepted.iter().partition(stuck);
    let free: Vec<Accepted> = free.into_iter().cloned().collect();
    assert!(stuck.iter().any(|job| waits["job"] == job.job.as_str()));
    dead.iter().for_each(|node| room.kill(*node));

    let ends = end::judge(&free, &cases, room.apis(), &living, |_| ());
    assert_good(&ends, free.len());
    let job = waits["job"].as_str().expect("an id");
    for node in &living {
        let reply = room.apis()[*node].get(&format!("/api/jobs/{job}"));
        if reply.status == 200 {
            let state = reply.json()["state"].clone();
            assert!(
                state == "running" || state == "queued",
                "nobody could go on with it: {}",
                reply.text()
            );
        }
    }

    room.start(backup);
    let mut living = living;
    living.push(backup);
    let ends = end::judge(&accepted, &cases, room.apis(), &living, |_| ());
    assert_good(&ends, accepted.len());
    let waited = ends.done.iter().find(|status| status["job"] == *job);
    let waited = waited.expect("it is done");
    assert_eq!(
        waited["coordinator"],
        devices[backup].as_str(),
        "{waited:#}"
    );
    assert!(number(waited, "epoch") >= 2, "{waited:#}");
}

/// Four products that take seconds at each node, all at the same time.
fn submit_at_once(room: &Room, cases: &Cases) -> Vec<Accepted> {
    let together = Barrier::new(NAMES.len());
    thread::scope(|scope| {
        let threads: Vec<_> = room
            .apis()
            .iter()
            .enumerate()
            .map(|(node, api)| {
                let together = &together;
                scope.spawn(move || {
                    let large = cases.large(node);
                    let requests = large.map(|product| {
                        let ids = cases.factors(product.pair).map(|body| api.matrix(&body));
                        Cases::request(product, &ids)
                    });
                    together.wait();
                    let jobs = requests.map(|request| api.submit(&request));
                    let jobs = jobs.into_iter().zip(large);
                    jobs.map(|(job, product)| Accepted { job, product, node })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let jobs = threads.into_iter().map(|thread| thread.join());
        jobs.flat_map(|jobs| jobs.expect("each is accepted"))
            .collect()
    })
}

#[track_caller]
fn assert_good(ends: &Ends, jobs: usize) {
    let none: [String; 0] = [];
    assert_eq!(ends.lost, none);
    assert_eq!(ends.wrong, none);
    assert_eq!(ends.done.len(), jobs);
}

#[track_caller]
fn number(status: &Value, field: &str) -> u64 {
    let number = status[field].as_u64();
    number.unwrap_or_else(|| panic!("{field} is no number: {status:#}"))
}

/// One after the other: each has five nodes. `None` when they are left out.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    netns::available().then(|| TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

//! Whole meshes in a simulated network.

use gemmesh_protocol::id::JobId;
use gemmesh_protocol::io::{Input, WorkerMemory};
use gemmesh_protocol::message::Refusal;
use gemmesh_protocol::status::{DeviceState, JobState, JobStatus};
use gemmesh_protocol::time::{Instant, Span};
use gemmesh_tests::sim::{Sim, Spec};

#[test]
fn two_nodes_and_a_page_share_one_product() {
    let mut sim = Sim::new(1);
    let [a, b, page] = trio(&mut sim, [Spec::default(); 3]);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    for host in [a, b, page] {
        let share = share(&sim, &status, host);
        assert!(share >= 0.25, "host {host}: {share}");
    }
    let ideal = status.predicted_seconds.expect("predicted");
    assert!(
        status.seconds < 1.3 * ideal,
        "{} of {ideal}",
        status.seconds
    );
    assert!(status.bytes_floor > 0);
    assert_page_agrees(&sim, page, &status);
    assert!(sim.page(page).jobs().iter().any(|status| status.job == job));
}

#[test]
fn unequal_devices_finish_together() {
    let mut sim = Sim::new(2);
    let fast = Spec {
        mflops: 8_000.0,
        slots: 4,
        ..Spec::default()
    };
    let slow = Spec {
        mflops: 2_000.0,
        ..Spec::default()
    };
    let [a, b, page] = trio(&mut sim, [fast, Spec::default(), slow]);
    let job = sim.submit(a, 3_000, 3_000, 3_000);
    let status = finish(&mut sim, job, 60);
    let ideal = status.predicted_seconds.expect("predicted");
    assert!(
        status.seconds < 1.25 * ideal,
        "{} of {ideal}",
        status.seconds
    );
    for (host, expected) in [(a, 8.0 / 14.0), (b, 4.0 / 14.0), (page, 2.0 / 14.0)] {
        let share = share(&sim, &status, host);
        assert!((share - expected).abs() < 0.08, "host {host}: {share}");
    }
}

#[test]
fn nobody_waits_long_for_a_helper_that_is_slower_than_it_says() {
    let mut sim = Sim::new(3);
    let lame = Spec {
        truth: 0.02,
        ..Spec::default()
    };
    let [a, _, _] = trio(&mut sim, [Spec::default(), lame, Spec::default()]);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    // Two of the three do it all: 16 GFLOP at 8 GFLOP/s.
    assert!(status.seconds < 2.0 * 1.4, "{}", status.seconds);
}

#[test]
fn nobody_waits_long_for_a_page_that_fell_asleep() {
    let mut sim = Sim::new(4);
    let [a, _, page] = trio(&mut sim, [Spec::default(); 3]);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    sim.run(Span::from_millis(400), |_| false);
    sim.vanish(page);
    let status = finish(&mut sim, job, 60);
    assert!(status.seconds < 2.0 * 1.5, "{}", status.seconds);
}

#[test]
fn a_page_does_not_count_tiles_that_somebody_else_delivered_first() {
    let mut doubled = 0;
    for seed in 50..100 {
        let mut sim = Sim::new(40 + seed);
        // Results and the news that they are not needed any more cross on the way.
        sim.set_latency(Span::from_millis(80));
        // So much slower than it says that its first tiles are given to others, too.
        let truth = 0.01 + 0.001 * seed as f64;
        let lame = Spec {
            truth,
            ..Spec::default()
        };
        let [a, _, page] = trio(&mut sim, [Spec::default(), Spec::default(), lame]);
        let job = sim.submit(a, 2_000, 2_000, 2_000);
        let status = finish(&mut sim, job, 60);
        doubled += status.tiles_recomputed;
        // The last verdicts are still on their way.
        sim.run(Span::from_secs(1), |_| false);
        assert_page_agrees(&sim, page, &status);
    }
    assert!(doubled > 0, "the case never came up");
}

#[test]
fn a_node_that_joins_late_gets_its_share() {
    let mut sim = Sim::new(5);
    let a = sim.add_node(Spec::default());
    let job = sim.submit(a, 3_000, 3_000, 3_000);
    sim.run(Span::from_secs(3), |_| false);
    let b = sim.add_node(Spec::default());
    sim.hint(b, a, true);
    let status = finish(&mut sim, job, 120);
    assert!(share(&sim, &status, b) > 0.3);
}

#[test]
fn a_device_that_has_not_measured_itself_yet_works_too() {
    let mut sim = Sim::new(19);
    let [a, b, _] = trio(&mut sim, [Spec::default(); 3]);
    let unknown = Input::Configure {
        name: None,
        slots: None,
        paused: None,
        mflops: Some(0.0),
    };
    sim.input(b, unknown);
    sim.run(Span::from_millis(100), |_| false);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    assert!(share(&sim, &status, b) > 0.2);
}

#[test]
fn a_short_job_is_not_sent_anywhere() {
    let mut sim = Sim::new(6);
    let [a, _, _] = trio(&mut sim, [Spec::default(); 3]);
    let job = sim.submit(a, 200, 200, 200);
    let status = finish(&mut sim, job, 10);
    assert!(share(&sim, &status, a) == 1.0);
    assert!(status.seconds < 0.05, "{}", status.seconds);
}

#[test]
fn a_short_job_of_a_paused_node_is_done_by_others() {
    let mut sim = Sim::new(7);
    let [a, _, _] = trio(&mut sim, [Spec::default(); 3]);
    pause(&mut sim, a, true);
    let job = sim.submit(a, 200, 200, 200);
    let status = finish(&mut sim, job, 10);
    assert!(share(&sim, &status, a) == 0.0);
    assert_eq!(sim.engine(a).record().state, DeviceState::Paused);
}

#[test]
fn a_liar_is_caught_and_gets_no_more_tiles() {
    let mut sim = Sim::new(8);
    let liar = Spec {
        liar: true,
        ..Spec::default()
    };
    let [a, b, _] = trio(&mut sim, [Spec::default(), liar, Spec::default()]);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    assert!(share(&sim, &status, b) == 0.0);
    assert_eq!(sim.quarantined.first(), Some(&sim.hosts[b].device));
}

#[test]
fn a_page_that_can_not_reach_the_coordinator_is_relayed_by_its_node() {
    let mut sim = Sim::new(9);
    let a = sim.add_node(Spec::default());
    let b = sim.add_node(Spec::default());
    sim.hint(b, a, true);
    let page = sim.add_page(Spec::default(), b);
    sim.walls.insert((page, a));
    assert!(sim.run(Span::from_secs(5), |sim| sim.engine(a).devices().len() == 3));
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    assert!(share(&sim, &status, page) > 0.2);
}

#[test]
fn a_tile_that_fails_everywhere_fails_the_job_with_a_reason() {
    let mut sim = Sim::new(10);
    let broken = Spec {
        fails: 1,
        ..Spec::default()
    };
    let [a, _, _] = trio(&mut sim, [broken; 3]);
    let job = sim.submit(a, 1_000, 1_000, 1_000);
    assert!(sim.run(Span::from_secs(60), Sim::all_ended));
    let status = sim.jobs[&job].ended.clone().expect("it ended");
    assert_eq!(status.state, JobState::Failed);
    assert!(status.error.expect("a reason").contains("tile"));
}

#[test]
fn several_jobs_of_several_nodes_run_at_once() {
    let mut sim = Sim::new(11);
    let [a, b, _] = trio(&mut sim, [Spec::default(); 3]);
    let jobs: Vec<JobId> = [a, b, a, b]
        .into_iter()
        .map(|host| sim.submit(host, 1_200, 1_200, 1_200))
        .collect();
    assert!(sim.run(Span::from_secs(60), Sim::all_ended));
    for job in jobs {
        let status = sim.jobs[&job].ended.clone().expect("it ended");
        assert_eq!(status.state, JobState::Done);
    }
    // The other node knows how they ended.
    sim.run(Span::from_secs(1), |_| false);
    for host in [a, b] {
        let jobs = sim.engine(host).jobs(Instant(sim.now));
        assert_eq!(jobs.len(), 4);
        assert!(jobs.iter().all(|status| status.state == JobState::Done));
    }
}

#[test]
fn a_small_cache_is_enough() {
    let mut sim = Sim::new(12);
    let small = Spec {
        memory: WorkerMemory {
            window_bytes: 0,
            ..WorkerMemory::of_cache(4 << 20)
        },
        ..Spec::default()
    };
    let [a, _, page] = trio(&mut sim, [small; 3]);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    assert!(share(&sim, &status, page) > 0.1);
}

#[test]
fn a_lost_device_is_shown_for_a_minute() {
    let mut sim = Sim::new(13);
    let [a, b, page] = trio(&mut sim, [Spec::default(); 3]);
    // A page that lives would move to the other node.
    sim.power_off(page);
    sim.kill(b);
    let state = |sim: &Sim, host: usize| {
        let device = sim.hosts[host].device;
        let entries = sim.engine(a).devices();
        let entry = entries.into_iter().find(|entry| entry.device == device);
        entry.map(|entry| entry.state)
    };
    assert!(sim.run(Span::from_secs(10), |sim| {
        state(sim, b) == Some(DeviceState::Lost) && state(sim, page) == Some(DeviceState::Lost)
    }));
    assert!(
        sim.run(Span::from_secs(70), |sim| sim.engine(a).devices().len()
            == 1)
    );
}

#[test]
fn nodes_that_dial_each_other_keep_one_link() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let a = sim.add_node(Spec::default());
        let b = sim.add_node(Spec::default());
        for _ in 0..2 {
            sim.hint(a, b, true);
            sim.hint(b, a, true);
        }
        sim.run(Span::from_secs(60), |_| false);
        assert_eq!(sim.connections_up(), 1, "seed {seed}");
        assert_eq!(sim.engine(a).peers().count(), 1);
        assert_eq!(sim.engine(b).peers().count(), 1);
        assert!(sim.joined.iter().all(|(_, outcome)| outcome.is_ok()));
    }
}

#[test]
fn nodes_learn_of_each_other_by_gossip() {
    let mut sim = Sim::new(14);
    let nodes: Vec<usize> = (0..5).map(|_| sim.add_node(Spec::default())).collect();
    for pair in nodes.windows(2) {
        sim.hint(pair[0], pair[1], true);
    }
    let complete = |sim: &Sim| {
        let mut nodes = nodes.iter();
        nodes.all(|&node| sim.engine(node).peers().count() == 4)
    };
    assert!(sim.run(Span::from_secs(20), complete));
}

#[test]
fn a_node_of_another_mesh_is_refused() {
    let mut sim = Sim::new(15);
    let a = sim.add_node(Spec::default());
    let other = Spec {
        mesh: "other",
        ..Spec::default()
    };
    let b = sim.add_node(other);
    sim.hint(b, a, false);
    sim.run(Span::from_secs(5), |_| false);
    assert_eq!(sim.joined.first(), Some(&(b, Err(Refusal::Mesh))));
    assert_eq!(sim.engine(a).devices().len(), 1);
}

#[test]
fn a_second_device_with_the_same_id_is_refused_while_the_first_is_there() {
    let mut sim = Sim::new(16);
    let a = sim.add_node(Spec::default());
    let page = sim.add_page(Spec::default(), a);
    assert!(sim.run(Span::from_secs(5), |sim| sim.engine(a).devices().len() == 2));
    let twin = Spec {
        twin: Some(page),
        ..Spec::default()
    };
    let second = sim.add_page(twin, a);
    let refused = |sim: &Sim| sim.joined.contains(&(second, Err(Refusal::DuplicateId)));
    assert!(sim.run(Span::from_secs(5), refused));
    let contribution = sim.page(second).contribution();
    assert_eq!(contribution.refusal, Some(Refusal::DuplicateId));
    // The first falls asleep: the second gets its place.
    sim.vanish(page);
    let device = sim.hosts[page].device;
    let joined = |sim: &Sim| sim.joined.contains(&(second, Ok(sim.hosts[a].device)));
    assert!(sim.run(Span::from_secs(15), joined), "{device}");
}

#[test]
fn a_page_that_slept_is_a_member_again_soon_after_it_wakes() {
    let mut sim = Sim::new(17);
    let [a, b, page] = trio(&mut sim, [Spec::default(); 3]);
    sim.vanish(page);
    sim.run(Span::from_secs(30), |_| false);
    let state = |sim: &Sim, at: usize| {
        let device = sim.hosts[page].device;
        let entries = sim.engine(at).devices();
        let entry = entries.into_iter().find(|entry| entry.device == device);
        entry.map(|entry| entry.state)
    };
    assert_eq!(state(&sim, a), Some(DeviceState::Lost));
    sim.wake(page);
    assert!(sim.run(Span::from_secs(3), |sim| {
        [a, b].map(|at| state(sim, at)) == [Some(DeviceState::Ready); 2]
    }));
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let status = finish(&mut sim, job, 60);
    assert!(share(&sim, &status, page) > 0.2);
}

#[test]
fn a_node_that_leaves_hands_its_tiles_back_at_once() {
    let mut sim = Sim::new(18);
    let [a, b, _] = trio(&mut sim, [Spec::default(); 3]);
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    sim.run(Span::from_millis(300), |_| false);
    sim.input(b, Input::Leave);
    sim.kill(b);
    let status = finish(&mut sim, job, 60);
    assert!(status.seconds < 2.0 * 2.0, "{}", status.seconds);
    let device = sim.hosts[b].device;
    let entries = sim.engine(a).devices();
    let entry = entries.into_iter().find(|entry| entry.device == device);
    assert_eq!(entry.map(|entry| entry.state), Some(DeviceState::Lost));
}

/// What the page says it did is what the job says the page did.
fn assert_page_agrees(sim: &Sim, page: usize, status: &JobStatus) {
    let told = sim.page(page).contribution();
    let mut booked = status.contributions.iter();
    let booked = booked.find(|part| part.device == sim.hosts[page].device);
    let booked = booked.map_or((0, 0, 0), |part| (part.tiles, part.rows, part.operations));
    assert_eq!((told.tiles, told.rows, told.operations), booked);
}

/// Two nodes that know each other, and a page of the second.
fn trio(sim: &mut Sim, specs: [Spec; 3]) -> [usize; 3] {
    let a = sim.add_node(specs[0]);
    let b = sim.add_node(specs[1]);
    sim.hint(a, b, false);
    sim.hint(b, a, false);
    let page = sim.add_page(specs[2], b);
    let complete = |sim: &Sim| {
        let known = [a, b].map(|host| sim.engine(host).devices().len());
        known == [3, 3] && sim.page(page).devices().len() == 3
    };
    assert!(sim.run(Span::from_secs(5), complete));
    [a, b, page]
}

fn finish(sim: &mut Sim, job: JobId, seconds: u64) -> JobStatus {
    let ended = sim.run(Span::from_secs(seconds), Sim::all_ended);
    let host = sim.jobs[&job].host;
    let status = sim.engine(host).job_status(job, Instant(sim.now));
    assert!(ended, "{status:#?}");
    let status = sim.jobs[&job].ended.clone().expect("it ended");
    assert_eq!(status.state, JobState::Done, "{status:#?}");
    println!("{} s of {:?}", status.seconds, status.predicted_seconds);
    status
}

fn share(sim: &Sim, status: &JobStatus, host: usize) -> f64 {
    let device = sim.hosts[host].device;
    let all: u64 = status.contributions.iter().map(|c| c.operations).sum();
    let own = status.contributions.iter().filter(|c| c.device == device);
    own.map(|c| c.operations).sum::<u64>() as f64 / all as f64
}

fn pause(sim: &mut Sim, host: usize, paused: bool) {
    let configure = Input::Configure {
        name: None,
        slots: None,
        paused: Some(paused),
        mflops: None,
    };
    sim.input(host, configure);
}

//! Whole meshes in a simulated network.

mod sim;

use gemmesh_protocol::status::JobState;
use gemmesh_protocol::time::Span;
use sim::{Sim, Spec};

#[test]
fn two_nodes_and_a_page_share_one_product() {
    let mut sim = Sim::new(1);
    let a = sim.add_node(Spec::default());
    let b = sim.add_node(Spec::default());
    sim.hint(a, b, false);
    sim.hint(b, a, false);
    let page = sim.add_page(Spec::default(), b);
    assert!(sim.run(Span::from_secs(5), |sim| sim.engine(a).devices().len() == 3));
    let job = sim.submit(a, 2_000, 2_000, 2_000);
    let ended = sim.run(Span::from_secs(60), |sim| sim.all_ended());
    let status = sim
        .engine(a)
        .job_status(job, gemmesh_protocol::time::Instant(sim.now));
    println!("{status:#?}");
    assert!(ended);
    let status = sim.jobs[&job].ended.clone().expect("it ended");
    assert_eq!(status.state, JobState::Done);
    let all: u64 = status.contributions.iter().map(|c| c.operations).sum();
    for host in [a, b, page] {
        let device = sim.hosts[host].device;
        let part = status.contributions.iter().find(|c| c.device == device);
        let share = part.map_or(0.0, |part| part.operations as f64 / all as f64);
        assert!(share >= 0.25, "{device}: {share}");
    }
    let ideal = status.predicted_seconds.expect("predicted");
    assert!(
        status.seconds < 1.4 * ideal,
        "{} of {ideal}",
        status.seconds
    );
}

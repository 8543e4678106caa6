//! Links that are narrow: help must never cost time.

use std::process::Command;

use gemmesh_tests::netns::{self, Host, Lan};
use gemmesh_tests::node::{Options, await_mesh, fresh_mesh};

use super::{alone, count, operands, run, seconds, warm};

/// Two nodes of one thread, with `rate` each way between them, against one.
pub fn measure(rate: &str, edge: usize, pairs: usize) {
    if !netns::available() {
        return;
    }
    println!(
        "{edge} × {edge} f64, {rate}/s between two nodes of one thread, against one, {pairs} pairs of runs:"
    );
    let mut lan = Lan::new();
    let hosts = [lan.host("one"), lan.host("two"), lan.host("lone")];
    for host in &hosts[..2] {
        narrow(host, rate);
    }
    let name = fresh_mesh();
    let start = |(n, host): (usize, &Host)| {
        Options::on(host, &format!("node-{n}"), &name)
            .arg("--backups=0")
            .start()
    };
    let nodes: Vec<_> = hosts[..2].iter().enumerate().map(start).collect();
    await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
    warm(&nodes[0].api);
    let lone = alone(Options::on(&hosts[2], "lone", &fresh_mesh()));
    for pair in 0..pairs {
        let ids = operands(&[&lone.api, &nodes[0].api], edge, pair as u64 + 200);
        let early = (pair % 2 == 0).then(|| run(&lone.api, &ids[0]));
        let two = run(&nodes[0].api, &ids[1]);
        let one = early.unwrap_or_else(|| run(&lone.api, &ids[0]));
        println!(
            "  one {:.2} s, two {:.2} s: {:.2} times as long; {:.0} MB sent",
            seconds(&one),
            seconds(&two),
            seconds(&two) / seconds(&one),
            count(&two, "bytes_sent") / 1e6
        );
    }
}

/// A token bucket on what the host sends.
fn narrow(host: &Host, rate: &str) {
    let args = ["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate];
    let status = host.run(|| {
        Command::new("tc")
            .args(args)
            .args(["burst", "256kb", "latency", "50ms"])
            .status()
    });
    assert!(status.expect("tc runs").success(), "tc narrows the link");
}

//! Bytes: what a job sent, the least that it could have, and what the network interface counted.

use std::fs;

use gemmesh_tests::netns::{self, Host, Lan};
use gemmesh_tests::node::{Options, await_mesh, fresh_mesh};

use super::{count, mesh, operands, run};

/// Against the floor, on two to four nodes. No times: they may have more threads than there are cores.
pub fn measure(edge: usize) {
    println!(
        "{edge} × {edge} f64, nothing cached: bytes sent over the least possible (bytes_floor):"
    );
    for nodes in 2..=4 {
        let nodes = mesh(nodes, &["--backups=0"]);
        let ids = operands(&[&nodes[0].api], edge, nodes.len() as u64 + 50).remove(0);
        let status = run(&nodes[0].api, &ids);
        let (sent, floor) = (count(&status, "bytes_sent"), count(&status, "bytes_floor"));
        println!(
            "  {} nodes: {:.0} MB of {:.0} MB: {:.2} times the floor",
            nodes.len(),
            sent / 1e6,
            floor / 1e6,
            sent / floor
        );
    }
}

/// Against the counters of the interface between two network namespaces.
pub fn measure_interface(edge: usize) {
    if !netns::available() {
        return;
    }
    println!(
        "{edge} × {edge} f64, two nodes in network namespaces: bytes of the interface over bytes_sent:"
    );
    let (mut lan, name) = (Lan::new(), fresh_mesh());
    let hosts = [lan.host("one"), lan.host("two")];
    let start = |(n, host): (usize, &Host)| {
        let options = Options::on(host, &format!("node-{n}"), &name);
        options.arg("--backups=0").start()
    };
    let nodes: Vec<_> = hosts.iter().enumerate().map(start).collect();
    await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
    for seed in 70..72 {
        let ids = operands(&[&nodes[0].api], edge, seed).remove(0);
        let before = interface_bytes(&hosts[0]);
        let status = run(&nodes[0].api, &ids);
        let counted = interface_bytes(&hosts[0]) - before;
        let sent = count(&status, "bytes_sent");
        println!(
            "  {:.1} MB on the interface, bytes_sent {:.1} MB: {:.3} times",
            counted / 1e6,
            sent / 1e6,
            counted / sent
        );
    }
}

/// Both ways, headers of packets included.
fn interface_bytes(host: &Host) -> f64 {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("Linux tells"));
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let fields = line.expect("an interface").split_whitespace();
    let fields: Vec<f64> = fields.map(|n| n.parse().expect("a number")).collect();
    fields[0] + fields[8]
}

/// A second product with the same B, and another A.
pub fn measure_again(edge: usize) {
    println!(
        "{edge} × {edge} f64, two nodes, a second job with the same B: numbers moved over n²:"
    );
    let nodes = mesh(2, &["--backups=0"]);
    let api = &nodes[0].api;
    let first = operands(&[api], edge, 90).remove(0);
    let other = operands(&[api], edge, 91).remove(0);
    let numbers = (edge * edge) as f64 * 8.0;
    for (what, ids) in [
        ("first", &first),
        ("the same B", &[other[0].clone(), first[1].clone()]),
        ("the same A and B", &first),
    ] {
        let sent = count(&run(api, ids), "bytes_sent");
        println!("  {what}: {:.2} n²", sent / numbers);
    }
}

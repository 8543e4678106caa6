//! Two nodes of one thread against one.

use gemmesh_tests::node::{Node, Options, fresh_mesh};
use serde_json::Value;

use super::{alone, count, median, mesh, operands, run, seconds, settle};

/// Prints how much faster two are, with nothing cached at the other node, and in `repeats` more runs with
/// both operands there.
pub fn measure(edge: usize, pairs: usize, repeats: usize) {
    println!(
        "{edge} × {edge} f64 on loopback, two nodes of one thread against one, {pairs} pairs of runs:"
    );
    let lone = alone(Options::loopback("lone", &fresh_mesh()));
    let meshes = [
        ("--backups 0", mesh(2, &["--backups=0"]), 0),
        ("default (one backup)", mesh(2, &[]), 1),
    ];
    let (mut cold, mut cached) = ([vec![], vec![]], [vec![], vec![]]);
    for pair in 0..pairs {
        let mut apis = vec![&lone.api];
        apis.extend(meshes.iter().map(|(_, nodes, _)| &nodes[0].api));
        let ids = operands(&apis, edge, pair as u64 + 1);
        // Which comes first changes.
        let mut one = (pair % 2 == 0).then(|| run(&lone.api, &ids[0]));
        for (at, (name, nodes, backups)) in meshes.iter().enumerate() {
            let two = run(&nodes[0].api, &ids[1 + at]);
            settle(&nodes[0].api, &two, *backups);
            let one = one.get_or_insert_with(|| run(&lone.api, &ids[0]));
            cold[at].push(line(&format!("{name}, nothing cached"), one, &two, nodes));
            for _ in 0..repeats {
                let two = run(&nodes[0].api, &ids[1 + at]);
                settle(&nodes[0].api, &two, *backups);
                if count(&two, "bytes_sent") < 1.1 * returned(&two, nodes) {
                    cached[at].push(line(&format!("{name}, cached"), one, &two, nodes));
                }
            }
        }
    }
    for (what, ratios) in [("nothing cached", cold), ("both operands cached", cached)] {
        for ((name, ..), ratios) in meshes.iter().zip(ratios) {
            if ratios.is_empty() {
                println!("  {name}, {what}: no run of the kind");
            } else {
                println!(
                    "  {name}, {what}: {:.2} times as fast (median)",
                    median(ratios)
                );
            }
        }
    }
}

/// Bytes of the tiles that the other node sent back.
fn returned(status: &Value, nodes: &[Node]) -> f64 {
    let elements = count(status, "rows") * count(status, "cols");
    8.0 * elements * share(status, nodes)
}

/// The part of the operations that were not the coordinator's.
fn share(status: &Value, nodes: &[Node]) -> f64 {
    let parts = status["contributions"].as_array().expect("a list");
    let operations = |own: bool| -> f64 {
        let parts = parts.iter();
        let parts = parts.filter(|part| (part["name"] == nodes[0].name.as_str()) == own);
        parts.map(|part| count(part, "operations")).sum()
    };
    operations(false) / (operations(false) + operations(true))
}

fn line(what: &str, one: &Value, two: &Value, nodes: &[Node]) -> f64 {
    let ratio = seconds(one) / seconds(two);
    println!(
        "    {what}: one {:.2} s, two {:.2} s: {ratio:.2} times; the other computed {:.0} %, {:.0} MB sent, \
         {:.0} MB to backups",
        seconds(one),
        seconds(two),
        100.0 * share(two, nodes),
        count(two, "bytes_sent") / 1e6,
        count(two, "bytes_replicated") / 1e6
    );
    ratio
}

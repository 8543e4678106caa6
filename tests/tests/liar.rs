//! A helper that lies: it speaks the wire protocol perfectly and returns wrong tiles at once, so that it
//! would win every race. The product is right all the same, and the liar is found out.
#![cfg(target_os = "linux")]

use std::time::Duration;

use gemmesh_protocol::job::JobHeader;
use gemmesh_protocol::message::{Message, Work};
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Node, Options, fresh_mesh};
use gemmesh_tests::peer::Peer;
use gemmesh_tests::wait::until;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);
/// The speed that a liar tells: most of the tiles are planned for it.
const TEMPTING: f64 = 1e6;

#[test]
fn zeros_are_refused() {
    check("zeros", |tile| tile.fill(0));
}

#[test]
fn nan_is_refused() {
    check("nan", |tile| fill(tile, f64::NAN));
}

#[test]
fn huge_numbers_are_refused() {
    check("huge", |tile| fill(tile, 1e300));
}

#[test]
fn infinities_of_the_wrong_sign_do_not_count() {
    // Random vectors can not tell one infinity from another: only the product can.
    let mesh = fresh_mesh();
    let node = Options::loopback("infinite", &mesh)
        .arg("--no-mdns")
        .start();
    let liar = Peer::join(&node, &mesh, "liar", TEMPTING);
    node.api.await_devices(2);
    let lying = std::thread::spawn(move || answer(liar, |tile| fill(tile, f64::INFINITY)));

    // More than the node would rather do alone, whatever it believes of the link.
    let (rows, inner, cols) = (3_000, 2_900, 3_100);
    let (mut a, b) = (
        Matrix::random(rows, inner, 5),
        Matrix::random(inner, cols, 6),
    );
    for i in 0..rows {
        a.set(i, 3, f64::INFINITY);
    }
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    until("a lie to be replaced", LIMIT, || {
        let job = node.api.multiply(&a_id, &b_id);
        let status = node.api.done(&job);
        let product = Matrix::from_npy(&node.api.result(&job, "npy"));
        for i in 0..rows {
            for j in 0..cols {
                let expected = f64::INFINITY * b.at(3, j);
                assert_eq!(product.at(i, j), expected, "[{i}, {j}] of {status:#}");
            }
        }
        let parts = status["contributions"].as_array().expect("a list");
        assert!(
            parts.iter().all(|part| part["name"] != "liar"),
            "nothing of the liar's counts: {status:#}"
        );
        if tiles(&node, "replaced") > 0 {
            Ok(())
        } else {
            Err(format!("{status:#}"))
        }
    });
    drop(node);
    lying.join().expect("the liar ends with its connection");
}

/// Runs a job of one honest node and a page that answers every lease with what `lie` makes.
fn check(name: &str, lie: impl Fn(&mut [u8]) + Send + 'static) {
    let mesh = fresh_mesh();
    let node = Options::loopback(name, &mesh).arg("--no-mdns").start();
    let liar = Peer::join(&node, &mesh, "liar", TEMPTING);
    node.api.await_devices(2);
    let lying = std::thread::spawn(move || answer(liar, lie));

    // More than the node would rather do alone, whatever it believes of the link.
    let (a, b) = (
        Matrix::random(3_000, 2_900, 5),
        Matrix::random(2_900, 3_100, 6),
    );
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    let mut refused = 0;
    // The liar must have returned something before it is fair to say that it was refused.
    until("a wrong tile to be refused", LIMIT, || {
        let job = node.api.multiply(&a_id, &b_id);
        let status = node.api.done(&job);
        Matrix::from_npy(&node.api.result(&job, "npy")).assert_is_product(&a, &b);
        let parts = status["contributions"].as_array().expect("a list");
        assert!(
            parts.iter().all(|part| part["name"] != "liar"),
            "nothing of the liar's is accepted: {status:#}"
        );
        refused = refused_tiles(&node);
        if refused > 0 {
            Ok(())
        } else {
            Err(format!("{status:#}"))
        }
    });

    // It gets no more work.
    let job = node.api.submit(&json!({"a": a_id, "b": b_id}));
    node.api.done(&job);
    assert_eq!(refused_tiles(&node), refused, "one lie is enough");
    drop(node);
    lying.join().expect("the liar ends with its connection");
}

/// Takes every lease it can get and answers at once, until the node hangs up.
fn answer(mut liar: Peer, lie: impl Fn(&mut [u8])) {
    let mut job: Option<Box<JobHeader>> = None;
    while let Some((header, _)) = liar.hear() {
        let to = header.from;
        match header.body {
            Message::Open { job, .. } => {
                let (leases, header) = (8, true);
                let pull = Message::Pull {
                    job,
                    leases,
                    header,
                };
                liar.say(to, pull, &[]);
            }
            Message::Job(header) => job = Some(header),
            Message::Grants { epoch, grants, .. } => {
                let Some(header) = &job else { continue };
                for grant in grants {
                    let rect = header.tiling.rect(u64::from(grant.tile));
                    let mut tile = vec![0; (rect.rows * rect.cols * 8) as usize];
                    lie(&mut tile);
                    let result = Message::Result {
                        job: header.job,
                        epoch,
                        lease: grant.lease,
                        tile: grant.tile,
                        work: Work::default(),
                    };
                    liar.say(to, result, &tile);
                }
            }
            _ => {}
        }
    }
}

/// How many tiles the node has refused.
fn refused_tiles(node: &Node) -> u64 {
    tiles(node, "refused")
}

/// How many tiles of others had this outcome at the node, from its metrics.
fn tiles(node: &Node, outcome: &str) -> u64 {
    let text = node.api.get("/metrics").expect(200).text();
    let lines = text.lines().filter(|line| {
        line.starts_with("gemmesh_tiles_total") && line.contains(&format!("outcome=\"{outcome}\""))
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

fn fill(tile: &mut [u8], value: f64) {
    for element in tile.chunks_exact_mut(8) {
        element.copy_from_slice(&value.to_le_bytes());
    }
}

//! What travels between devices: nothing twice, and nobody waits for who reads slowly.
#![cfg(target_os = "linux")]

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use gemmesh_protocol::id::BlockId;
use gemmesh_protocol::job::Operand;
use gemmesh_protocol::message::{FETCH_BLOCKS_MAX, Message};
use gemmesh_tests::browser::Browser;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, JOB_LIMIT, Options, await_mesh, fresh_mesh};
use gemmesh_tests::peer::Peer;
use gemmesh_tests::wait::until;
use serde_json::Value;

/// The page has joined its node within this.
const PAGE_LIMIT: Duration = Duration::from_secs(60);
/// More than a node would rather do alone.
const EDGE: usize = 2_800;
/// A second job with the same B may move this many times n² numbers.
const AGAIN_MAX: f64 = 2.2;

#[test]
fn who_reads_slowly_slows_its_own_tiles_and_nothing_else() {
    let mesh = fresh_mesh();
    let nodes = ["one", "two"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    let slow = Peer::join(&nodes[0], &mesh, "slow", 50_000.0);
    nodes[0].api.await_devices(3);
    let (read_one, turns) = mpsc::channel();
    let reading = thread::spawn(move || read_slowly(slow, &turns));

    let (a, b) = (Matrix::random(EDGE, EDGE, 1), Matrix::random(EDGE, EDGE, 2));
    let api = &nodes[0].api;
    let ids = [api.matrix(&a.npy()), api.matrix(&b.npy())];
    let job = api.multiply(&ids[0], &ids[1]);
    // It reads one message for each look at the job.
    let status = until("the job to end", JOB_LIMIT, || {
        read_one.send(()).expect("it waits for its turn");
        let status = api.job(&job);
        (status["state"] == "done")
            .then(|| status.clone())
            .ok_or(status.to_string())
    });
    let slow_tiles = contribution(&status, "slow").map(|part| part["tiles"].clone());
    assert_eq!(slow_tiles, None, "it has returned nothing: {status:#}");
    Matrix::from_npy(&api.result(&job, "npy")).assert_is_product(&a, &b);

    // Its link has waited for it.
    drop(read_one);
    let (asked, before, right) = reading.join().expect("it gets what it asked for");
    assert!(
        before < asked,
        "it had {before} of {asked} blocks when the job was done"
    );
    assert_eq!(
        right, asked,
        "all that it asked for came in the end, as it should"
    );
}

/// Takes leases, asks for all blocks of both factors, and reads one message for each turn, then the rest:
/// how many blocks it asked for, how many it had by then, and how many were right in the end.
fn read_slowly(mut peer: Peer, turns: &mpsc::Receiver<()>) -> (usize, usize, usize) {
    let (mut blocks, mut asked) = ([Vec::new(), Vec::new()], 0);
    let (mut before, mut right) = (0, 0);
    let mut is_slow = true;
    loop {
        if is_slow && asked > 0 && turns.recv().is_err() {
            (is_slow, before) = (false, right);
        }
        if asked > 0 && right == asked {
            return (asked, before, right);
        }
        let Some((header, payload)) = peer.hear() else {
            return (asked, before, right);
        };
        let to = header.from;
        match header.body {
            Message::Open { job, .. } => {
                let pull = Message::Pull {
                    job,
                    leases: 4,
                    header: true,
                };
                peer.say(to, pull, &[]);
            }
            Message::Job(header) => {
                for (operand, manifest) in [(Operand::A, &header.a), (Operand::B, &header.b)] {
                    let indices: Vec<u32> = (0..manifest.blocks.len() as u32).collect();
                    assert!(indices.len() <= FETCH_BLOCKS_MAX, "one message");
                    asked += indices.len();
                    let fetch = Message::Fetch {
                        job: header.job,
                        operand,
                        blocks: indices,
                        link: None,
                    };
                    peer.say(to, fetch, &[]);
                }
                blocks = [header.a.blocks, header.b.blocks];
            }
            Message::Block { operand, block, .. } => {
                let expected = &blocks[usize::from(operand == Operand::B)][block as usize];
                right += usize::from(BlockId::of(&payload) == *expected);
            }
            _ => {}
        }
    }
}

#[test]
fn a_node_is_not_sent_the_same_operand_again() {
    let mesh = fresh_mesh();
    let nodes = ["one", "two"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    same_b_again(&nodes[0].api, "two");
}

#[test]
fn a_page_is_not_sent_the_same_operand_again() {
    let node = Options::loopback("home", &fresh_mesh())
        .arg("--no-mdns")
        .start();
    let browser = Browser::here();
    browser.open(&format!("http://{}/", node.api.address));
    browser.await_script(
        "the page to be online",
        PAGE_LIMIT,
        "return window.gemmesh?.connection.phase === 'online'",
    );
    let devices = node.api.await_devices(2);
    let page = devices.iter().find(|device| device["kind"] == "browser");
    let name = page.expect("a page")["name"].as_str().expect("a name");
    same_b_again(&node.api, name);
}

/// Products with the same B until the helper has done something for two of them.
fn same_b_again(api: &Api, helper: &str) {
    let b = api.matrix(&Matrix::random(EDGE, EDGE, 10).npy());
    let mut seed = 11;
    let mut with_help = || {
        until("the helper to help", JOB_LIMIT, || {
            let a = api.matrix(&Matrix::random(EDGE, EDGE, seed).npy());
            seed += 1;
            let status = api.done(&api.multiply(&a, &b));
            match contribution(&status, helper) {
                Some(_) => Ok(status),
                None => Err(status.to_string()),
            }
        })
    };
    with_help();
    let status = with_help();
    let sent = status["bytes_sent"].as_f64().expect("a number");
    let numbers = sent / 8.0 / (EDGE * EDGE) as f64;
    assert!(
        0.0 < numbers && numbers <= AGAIN_MAX,
        "{numbers} n²: {status:#}"
    );
}

#[test]
fn a_node_keeps_the_operands_that_it_took_from_another() {
    let mesh = fresh_mesh();
    let mut nodes = ["one", "two"].map(|name| Options::loopback(name, &mesh).start());
    await_mesh(&nodes.each_ref(), 0);
    let (a, b) = (Matrix::random(40, 50, 1), Matrix::random(50, 60, 2));
    let ids = [nodes[0].api.matrix(&a.npy()), nodes[0].api.matrix(&b.npy())];
    let multiply = |api: &Api| api.done(&api.multiply(&ids[0], &ids[1]));
    multiply(&nodes[1].api);
    nodes[0].kill();
    let status = multiply(&nodes[1].api);
    let result = status["result"].as_str().expect("an id");
    let product = nodes[1]
        .api
        .get(&format!("/api/matrices/{result}?format=npy"));
    Matrix::from_npy(&product.expect(200).body).assert_is_product(&a, &b);
}

fn contribution<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    let parts = status["contributions"].as_array().expect("a list");
    parts.iter().find(|part| part["name"] == name)
}

//! End to end on a network of its own: hosts in network namespaces on one bridge, a browser on one of
//! them. As in a room: addresses that are not loopback, plain http, mDNS and nothing else to find by.
#![cfg(target_os = "linux")]

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use gemmesh_tests::browser::Browser;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::netns::{self, Host, Lan};
use gemmesh_tests::node::{FIND_LIMIT, JOB_LIMIT, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::raw;
use gemmesh_tests::wait::{until, until_true};
use serde_json::{Value, json};

/// A page is online, or has answered, within this.
const PAGE_LIMIT: Duration = Duration::from_secs(60);
/// Each device's part of a shared job is at least this share of its operations.
const SHARE_MIN: f64 = 0.15;

#[test]
fn two_nodes_and_a_browser_find_each_other_and_share_a_job_of_the_page() {
    let Some(_turn) = turn() else { return };
    let mut lan = Lan::new();
    let (red, blue, client) = (lan.host("red"), lan.host("blue"), lan.host("client"));
    let mesh = fresh_mesh();
    let (red, blue) = (start(&red, "red", &mesh), start(&blue, "blue", &mesh));
    await_mesh(&[&red, &blue], 0);

    let browser = Browser::on(&client);
    let page = open_page(&browser, &red, "");
    await_mesh(&[&red, &blue], 1);
    assert_eq!(browser.script("return isSecureContext", &[]), json!(false));
    // Whoever is shown the code comes to the address that others reach.
    browser.click("#add-device");
    browser.await_script(
        "the address of the node",
        PAGE_LIMIT,
        &format!(
            "const code = document.querySelector('#qr'); return code.checkVisibility() && code.width > 200 && document.querySelector('#join-url').href === 'http://{}/'",
            red.api.address
        ),
    );
    browser.click("#join-close");
    let page_name = page["name"].as_str().expect("a name").to_owned();

    // Long enough that it is not over before the page has its first blocks.
    let (rows, inner, cols) = (3_000, 2_500, 2_800);
    let (job, a, b) = submit_on_page(&browser, [rows, inner, cols]);
    let status = red.api.done(&job);
    browser.await_script(
        "the page to show that it is done",
        PAGE_LIMIT,
        "return window.gemmesh.jobs[window.gemmesh.openJob]?.state === 'done' \
         && document.querySelectorAll('#result-table td').length > 0",
    );
    let total = 2.0 * (rows * inner * cols) as f64;
    for name in ["red", "blue", &page_name] {
        let share = operations_of(&status, name) / total;
        eprintln!("{name}: {:.1} % of the operations", 100.0 * share);
        assert!(
            share >= SHARE_MIN,
            "{name} has only {share:.3} of the operations: {status:#}"
        );
    }
    browser.await_script(
        "the page to know its part",
        PAGE_LIMIT,
        &format!(
            "return window.gemmesh.contribution.operations === {}",
            operations_of(&status, &page_name)
        ),
    );

    // The operands that the page made up are matrices as any other.
    let matrix = |id: &str| {
        let reply = blue.api.get(&format!("/api/matrices/{id}?format=npy"));
        Matrix::from_npy(&reply.expect(200).body)
    };
    Matrix::from_npy(&blue.api.result(&job, "npy")).assert_is_product(&matrix(&a), &matrix(&b));
}

#[test]
fn without_multicast_nobody_is_found() {
    let Some(_turn) = turn() else { return };
    let mut lan = Lan::new();
    let hosts = [lan.host("red"), lan.host("blue")];
    for host in &hosts {
        host.drop_mdns();
    }
    let mesh = fresh_mesh();
    let nodes = [
        start(&hosts[0], "red", &mesh),
        start(&hosts[1], "blue", &mesh),
    ];
    // Both have asked and announced themselves several times ...
    for host in &hosts {
        until_true("the node to have called for others", FIND_LIMIT, || {
            host.mdns_dropped() >= 6
        });
    }
    // ... and the network between them works ...
    let seen = hosts[0].run(|| {
        raw::request(
            &nodes[1].api.address,
            "GET",
            "/healthz",
            &[("Host", &nodes[1].api.address)],
        )
    });
    assert_eq!(seen.0, 200, "{}", seen.1);
    // ... yet neither knows of the other,
    for node in &nodes {
        let devices = node.api.devices();
        assert_eq!(devices.len(), 1, "{devices:?}");
    }
    // until multicast comes through.
    for host in &hosts {
        host.allow_mdns();
    }
    await_mesh(&nodes.each_ref(), 0);
}

#[test]
fn a_node_that_starts_without_a_network_is_reached_once_it_has_one() {
    let Some(_turn) = turn() else { return };
    let mut lan = Lan::new();
    let hosts = [lan.host("red"), lan.host("blue")];
    let mesh = fresh_mesh();
    let red = start(&hosts[0], "red", &mesh);
    hosts[1].set_link(false);
    let blue = start(&hosts[1], "blue", &mesh);
    hosts[1].set_link(true);
    await_mesh(&[&red, &blue], 0);
    let (device, address) = (blue.device(), blue.api.address.as_str());
    for node in [&red, &blue] {
        until("its address to be known", FIND_LIMIT, || {
            let devices = node.api.devices();
            let entry = devices.iter().find(|entry| entry["device"] == *device);
            let entry = entry.ok_or_else(|| format!("{devices:?}"))?;
            (entry["address"] == address)
                .then_some(())
                .ok_or(entry.to_string())
        });
    }
}

#[test]
fn a_page_with_plain_simd_works_for_a_default_job_of_another_node() {
    let Some(_turn) = turn() else { return };
    let mut lan = Lan::new();
    let (near, far, client) = (lan.host("near"), lan.host("far"), lan.host("client"));
    let mesh = fresh_mesh();
    let (near, far) = (start(&near, "near", &mesh), start(&far, "far", &mesh));
    await_mesh(&[&near, &far], 0);

    let browser = Browser::on(&client);
    let page = open_page(&browser, &near, "?build=simd");
    assert_eq!(page["build"], "simd");
    await_mesh(&[&near, &far], 1);
    let page_name = page["name"].as_str().expect("a name").to_owned();

    // The page is attached to one node; the job is run by the other.
    let (a, b) = (
        Matrix::random(2_600, 2_200, 21),
        Matrix::random(2_200, 2_500, 22),
    );
    let job = far
        .api
        .multiply(&far.api.matrix(&a.npy()), &far.api.matrix(&b.npy()));
    let status = far.api.done(&job);
    assert_eq!(status["coordinator"], far.device().as_str());
    assert!(
        operations_of(&status, &page_name) > 0.0,
        "the page has a part: {status:#}"
    );
    Matrix::from_npy(&near.api.result(&job, "npy")).assert_is_product(&a, &b);

    // It opened a link of its own to the other node, which its Origin allows: a member served it.
    let far_address = far.api.address.as_str();
    let near_origin = format!("http://{}", near.api.address);
    let link = |origin: &str| {
        client.run(|| raw::websocket(far_address, "/ws", &[("origin", origin)]).map(|_| ()))
    };
    assert_eq!(link(&near_origin), Ok(()), "a page of a member");
    assert_eq!(
        link("http://10.83.0.200:8080"),
        Err(403),
        "a page of a neighbour that is no member"
    );
}

#[test]
fn a_page_that_goes_away_does_not_hold_up_a_job() {
    let Some(_turn) = turn() else { return };
    let mut lan = Lan::new();
    let (node, client) = (lan.host("node"), lan.host("client"));
    let node = start(&node, "node", &fresh_mesh());
    let browser = Browser::on(&client);
    let page = open_page(&browser, &node, "");
    node.api.await_devices(2);
    let page_name = page["name"].as_str().expect("a name").to_owned();

    let (a, b) = (
        Matrix::random(2_200, 2_000, 31),
        Matrix::random(2_000, 2_100, 32),
    );
    let request = json!({
        "a": node.api.matrix(&a.npy()), "b": node.api.matrix(&b.npy()), "reproducible": true,
    });
    let job = node.api.submit(&request);
    until("the page to have computed a tile", JOB_LIMIT, || {
        let status = node.api.job(&job);
        assert_ne!(status["state"], "done", "the job is long enough");
        if operations_of(&status, &page_name) > 0.0 {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    browser.open("about:blank");
    node.api.done(&job);
    Matrix::from_npy(&node.api.result(&job, "npy")).assert_is_product(&a, &b);
    node.api.await_devices(1);
}

#[test]
fn a_page_outlives_its_node_and_returns_to_it() {
    let Some(_turn) = turn() else { return };
    let mut lan = Lan::new();
    let (first, second, client) = (lan.host("first"), lan.host("second"), lan.host("client"));
    let mesh = fresh_mesh();
    let data = tempfile::TempDir::new().expect("a temporary directory");
    let home = || {
        let options = Options::on(&first, "first", &mesh);
        options.data_dir(data.path()).start()
    };
    let mut first = home();
    let second = start(&second, "second", &mesh);
    await_mesh(&[&first, &second], 0);
    let browser = Browser::on(&client);
    let page = open_page(&browser, &first, "");
    await_mesh(&[&first, &second], 1);
    let page_name = page["name"].as_str().expect("a name").to_owned();
    let device = page["device"].as_str().expect("an id").to_owned();

    first.kill();
    // The page is at the other node, and says so.
    let there = |node: &Node| {
        until("the page to be a member", FIND_LIMIT, || {
            let devices = node.api.devices();
            let entry = devices.iter().find(|entry| entry["device"] == *device);
            let here = entry.is_some_and(|entry| {
                entry["state"] != "lost" && entry["address"] == node.api.address.as_str()
            });
            here.then_some(()).ok_or(format!("{devices:?}"))
        });
    };
    there(&second);
    browser.await_script(
        "the page to show where it is",
        PAGE_LIMIT,
        "return document.querySelector('#connection-state').textContent.includes('second')",
    );
    let link = "return document.querySelector('#moved-to').checkVisibility() \
        && document.querySelector('#moved-to').href";
    assert_eq!(
        browser.script(link, &[]),
        json!(format!("http://{}/", second.api.address))
    );

    // It works there.
    let (a, b) = (
        Matrix::random(1_600, 1_200, 41),
        Matrix::random(1_200, 1_500, 42),
    );
    let (a_id, b_id) = (second.api.matrix(&a.npy()), second.api.matrix(&b.npy()));
    let job = second.api.multiply(&a_id, &b_id);
    let status = second.api.done(&job);
    assert!(
        operations_of(&status, &page_name) > 0.0,
        "the page has a part: {status:#}"
    );
    Matrix::from_npy(&second.api.result(&job, "npy")).assert_is_product(&a, &b);
    browser.await_script(
        "the page to know of the job without its first node",
        PAGE_LIMIT,
        &format!("return window.gemmesh.jobs['{job}']?.state === 'done'"),
    );

    // Its own node comes back, and so does the page.
    drop(first);
    let first = home();
    there(&first);
    browser.await_script(
        "the page to show that",
        PAGE_LIMIT,
        "return !window.gemmesh.connection.moved && window.gemmesh.connection.node.name === 'first'",
    );
    assert_eq!(
        browser.script("return document.querySelector('#moved-to').hidden", &[]),
        json!(true)
    );
}

/// A node as a person starts it, with one thread.
fn start(host: &Host, name: &str, mesh: &str) -> Node {
    Options::on(host, name, mesh).start()
}

/// Opens the page of a node and waits until it takes part; what it says of itself.
fn open_page(browser: &Browser, node: &Node, query: &str) -> Value {
    browser.open(&format!("http://{}/{query}", node.api.address));
    browser.await_script(
        "the page to be online",
        PAGE_LIMIT,
        "return window.gemmesh?.connection.phase === 'online' && window.gemmesh.me",
    )
}

/// Submits a random product on the page, as a person does; the job and its operands.
fn submit_on_page(browser: &Browser, [rows, inner, cols]: [usize; 3]) -> (String, String, String) {
    for (id, value) in [
        ("#dim-rows", rows),
        ("#dim-inner", inner),
        ("#dim-cols", cols),
    ] {
        browser.fill(id, &value.to_string());
    }
    browser.click("#fill-random");
    // The page does not show the ids of what it sends, so the test reads along.
    browser.script(
        "window.sent = []; const send = XMLHttpRequest.prototype.send; \
         XMLHttpRequest.prototype.send = function (body) { \
           this.addEventListener('load', () => window.sent.push(JSON.parse(this.responseText).id)); \
           return send.call(this, body); }",
        &[],
    );
    browser.click("#run");
    let job = browser.await_script(
        "the page to have submitted",
        PAGE_LIMIT,
        "return window.gemmesh.openJob",
    );
    let sent = browser.script("return window.sent", &[]);
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    (text(&job), text(&sent[0]), text(&sent[1]))
}

fn operations_of(status: &Value, name: &str) -> f64 {
    let list = status["contributions"].as_array().expect("a list");
    let parts = list.iter().filter(|part| part["name"] == name);
    parts
        .map(|part| part["operations"].as_f64().expect("a number"))
        .sum()
}

/// These tests share two processors with three devices each: one after the other. `None` when they are
/// left out.
fn turn() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    netns::available().then(|| TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

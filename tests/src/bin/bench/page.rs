//! `make bench-page`: what a phone waits for and what it draws, in headless Chromium on a host of its own.
//!
//! Each load has a browser of its own, with nothing cached. Bytes are counted at the interface of the
//! browser's host, so they include TCP/IP and what the node says to the page.

use std::fs;
use std::time::Duration;

use gemmesh_tests::browser::Browser;
use gemmesh_tests::integers::Integers;
use gemmesh_tests::netns::{Host, Lan};
use gemmesh_tests::node::{Node, Options, fresh_mesh};
use gemmesh_tests::page::{PAGE_LIMIT, show};
use gemmesh_tests::wait::until;
use serde_json::{Value, json};

/// Loads whose medians are printed.
const LOADS: usize = 5;
/// The job in which the page finds work is this large.
const EDGE: usize = 2_500;
/// What the page must be able to draw smoothly.
const DEVICES: u32 = 50;
const TILES: u32 = 10_000;
/// Tiles that come with each frame.
const STEP: u32 = 50;

/// Measures and prints.
pub fn measure() {
    let mut lan = Lan::new();
    let (home, client) = (lan.host("home"), lan.host("client"));
    let node = Options::on(&home, "home", &fresh_mesh()).start();
    let url = format!("http://{}/", node.api.address);
    let loads: Vec<Load> = (0..LOADS).map(|_| load(&client, &node, &url)).collect();
    let factor = node.api.matrix(&Integers::random(EDGE, EDGE, 3).npy());
    let tiles = (0..LOADS).map(|_| first_tile(&client, &node, &url, &factor));
    let tiles: Vec<f64> = tiles.collect();
    println!("The page in {LOADS} browsers with nothing cached; median (least to most):");
    let line = |what: &str, unit: &str, mut figures: Vec<f64>| {
        figures.sort_by(f64::total_cmp);
        let (least, most) = (figures[0], figures[figures.len() - 1]);
        let median = figures[figures.len() / 2];
        println!("  {what:<47} {median:>8.0} {unit:<5} ({least:.0} to {most:.0})");
    };
    let of = |figure: fn(&Load) -> f64| loads.iter().map(figure).collect::<Vec<f64>>();
    line("received until it is ready", "bytes", of(|l| l.bytes));
    line("first contentful paint", "ms", of(|l| l.paint));
    line("navigation until it is ready", "ms", of(|l| l.ready));
    line("the same until a tile of a job is accepted", "ms", tiles);
    line("tasks of more than 50 ms", "", of(|l| l.tasks));
    line("the longest of them", "ms", of(|l| l.longest));

    let browser = Browser::on(&client);
    browser.open(&format!("{url}ca.html"));
    let script = include_str!("page.js");
    let script = format!("return (async function () {{ {script} }}).apply(null, arguments);");
    let drawn = browser.script(&script, &[json!(DEVICES), json!(TILES), json!(STEP)]);
    assert_eq!(drawn["drawn"], json!(TILES), "{drawn}");
    println!(
        "\nA job of {TILES} tiles by {DEVICES} devices, {STEP} new tiles in each of {} frames, ms:",
        TILES / STEP
    );
    let parts = &drawn["parts"];
    for (what, times) in [
        ("between frames", &drawn["frames"]),
        ("of which the page's scripts", &parts["page"]),
        ("  state", &parts["state"]),
        ("  the job: map, times, table", &parts["job"]),
        ("  devices and mesh", &parts["devices"]),
    ] {
        let mut times: Vec<f64> = list(times).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let [median, most, worst] = [0.5, 0.95, 1.0].map(at);
        println!("  {what:<30} median {median:>5.1}, 95 % within {most:>5.1}, worst {worst:>5.1}");
    }
}

/// Figures of one load: bytes, milliseconds, and how many tasks were long.
struct Load {
    bytes: f64,
    paint: f64,
    ready: f64,
    tasks: f64,
    longest: f64,
}

fn load(client: &Host, node: &Node, url: &str) -> Load {
    let browser = Browser::on(client);
    let before = received(client);
    show(&browser, url);
    let bytes = received(client) - before;
    let told = browser.script(
        "const connected = gemmesh.log.findLast(({ text }) => text.startsWith('Connected')); \
         const paint = performance.getEntriesByName('first-contentful-paint')[0].startTime; \
         return new Promise((done) => { \
           const told = (tasks) => done({ paint, ready: connected.time - performance.timeOrigin, tasks: tasks.map(({ duration }) => duration) }); \
           new PerformanceObserver((list) => told(list.getEntries())).observe({ type: 'longtask', buffered: true }); \
           setTimeout(told, 200, []); })",
        &[],
    );
    close(browser, node);
    let number = |value: &Value| value.as_f64().expect("a number");
    let tasks: Vec<f64> = list(&told["tasks"]).collect();
    Load {
        bytes: bytes as f64,
        paint: number(&told["paint"]),
        ready: number(&told["ready"]),
        tasks: tasks.len() as f64,
        longest: tasks.iter().copied().fold(0.0, f64::max),
    }
}

/// Milliseconds from the navigation to when a page that comes while a job runs has a tile accepted.
fn first_tile(client: &Host, node: &Node, url: &str, factor: &str) -> f64 {
    let browser = Browser::on(client);
    let job = node.api.submit(&json!({"a": factor, "b": factor}));
    browser.open(url);
    let at = browser.await_script(
        "the first accepted tile",
        PAGE_LIMIT,
        "return window.gemmesh?.contribution.tiles > 0 && performance.now()",
    );
    node.api.delete(&format!("/api/jobs/{job}"));
    close(browser, node);
    at.as_f64().expect("a number")
}

/// Ends a browser, and waits until the mesh has noticed.
fn close(browser: Browser, node: &Node) {
    drop(browser);
    until("the page to be gone", Duration::from_secs(30), || {
        let devices = node.api.devices();
        let page = |d: &&Value| d["kind"] == "browser" && d["state"] != "lost";
        let pages = devices.iter().filter(page).count();
        (pages == 0).then_some(()).ok_or(format!("{devices:?}"))
    });
}

fn list(value: &Value) -> impl Iterator<Item = f64> {
    let list = value.as_array().expect("a list");
    list.iter().filter_map(Value::as_f64)
}

/// Bytes that a host's interface has received.
fn received(host: &Host) -> u64 {
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/dev").expect("Linux tells"));
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"));
    let first = line.and_then(|line| line.split_whitespace().next());
    let bytes = first.and_then(|bytes| bytes.parse().ok());
    bytes.expect("a counter")
}

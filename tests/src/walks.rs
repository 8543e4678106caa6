//! What people do on a page, step by step, in whichever browser. Each walk begins at a page that is online
//! and says what the person must see.

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::integers::Integers;
use crate::node::{JOB_LIMIT, Node};
use crate::page::PAGE_LIMIT;
use crate::wait::until;

/// The page is a device of the mesh: the node lists it under the name, and with the threads, that it shows.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn join(node: &Node, browser: &Browser) {
    let me = browser.await_script(
        "the page to be a member",
        PAGE_LIMIT,
        "return gemmesh.devices.some(({device, state}) => device === gemmesh.me.device && state !== 'lost') && gemmesh.me",
    );
    let entry = until("the node to list the page", PAGE_LIMIT, || {
        let devices = node.api.devices();
        let own = devices.iter().find(|entry| entry["device"] == me["device"]);
        own.cloned().ok_or(format!("{devices:?}"))
    });
    assert_eq!(entry["kind"], json!("browser"));
    assert_eq!(entry["slots"], me["threads"]);
    assert_eq!(
        browser.text("#contribution-device"),
        entry["name"].as_str().expect("a name")
    );
    assert_eq!(browser.text("#contribution-node"), node.name);
}

/// The example in the grids is multiplied: the result is shown, and its heading has the focus.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn multiply_cells(browser: &Browser) {
    browser.click("#run");
    browser.await_script(
        "the product of the example",
        JOB_LIMIT,
        "return [...document.querySelectorAll('#result-table td')].map((td) => td.textContent).join() === '58,64,139,154'",
    );
    assert_eq!(
        browser.script("return document.activeElement.id", &[]),
        json!("job-heading"),
        "who can not see the page hears where the job is"
    );
}

/// A job of somebody else is opened and watched to its end: the map, its legend, the words about a tile, the
/// table, and the time of each device say what the API says. The job and its factor, which was squared.
///
/// # Panics
/// When they do not.
#[track_caller]
pub fn watch(node: &Node, browser: &Browser) -> (String, Integers) {
    let factor = Integers::random(1500, 1500, 1);
    let id = node.api.matrix(&factor.npy());
    let job = node
        .api
        .submit(&json!({"a": id, "b": id, "name": "a picture"}));
    browser.await_script(
        "the job in the list",
        JOB_LIMIT,
        &format!("return gemmesh.jobs['{job}'] && document.querySelector('.job-open')"),
    );
    browser.script("location.hash = `#job=${arguments[0]}`", &[json!(job)]);
    let status = node.api.done(&job);
    let total = status["tiles_total"].as_u64().expect("a number");
    browser.await_script(
        "all tiles on the map",
        JOB_LIMIT,
        &format!(
            "return document.querySelector('#job').dataset.job === '{job}' && document.querySelector('#map')?.dataset.tiles === '{total}'"
        ),
    );
    let told = node.api.get(&format!("/api/jobs/{job}/tiles"));
    let told = told.expect(200).json();
    let tiles = told["tiles"].as_array().expect("a list");
    assert_eq!(tiles.len() as u64, total);
    for part in status["contributions"].as_array().expect("a list") {
        let (device, count) = (part["device"].as_str(), part["tiles"].as_u64());
        let devices = told["devices"].as_array().expect("a list");
        let place = devices.iter().position(|d| d["device"].as_str() == device);
        let own = tiles.iter();
        let own = own.filter(|tile| tile[1].as_u64() == place.map(|place| place as u64));
        assert_eq!(Some(own.count() as u64), count, "{part}");
        browser.await_script(
            "its figures in the legend",
            PAGE_LIMIT,
            &format!(
                "return document.querySelector(`#map-legend [data-device='{}'] .legend-figures`)?.textContent.split(' ')[0] === '{}'",
                device.expect("an id"),
                count.expect("a number"),
            ),
        );
    }
    browser.script(
        "const map = document.querySelector('#map'); map.focus(); \
         for (const key of ['ArrowRight', 'ArrowRight']) \
           map.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true }));",
        &[],
    );
    browser.await_script(
        "the words about the second tile",
        PAGE_LIMIT,
        "return /^Tile 1, .* of computing/.test(document.querySelector('#map-about').textContent)",
    );
    // What is above it may still grow, and a click that misses is repeated.
    until("the list of tiles to open", PAGE_LIMIT, || {
        browser.click("#tiles summary");
        let open = browser.script("return document.querySelector('#tiles').open", &[]);
        (open == json!(true))
            .then_some(())
            .ok_or("closed".to_owned())
    });
    browser.await_script(
        "the table of the tiles",
        PAGE_LIMIT,
        &format!("return document.querySelectorAll('#tiles-table tbody tr').length === Math.min(100, {total})"),
    );
    browser.await_script(
        "a line of time for each device",
        PAGE_LIMIT,
        "return document.querySelectorAll('#stream-list li').length === gemmesh.mosaic.devices.length",
    );
    // What this page did for it.
    let parts = status["contributions"].as_array().expect("a list");
    let operations = |part: &Value| part["operations"].as_f64().expect("a number");
    let me = browser.script("return gemmesh.me.device", &[]);
    if let Some(own) = parts.iter().find(|part| part["device"] == me) {
        let share = operations(own) / parts.iter().map(operations).sum::<f64>();
        let shown = (1_000.0 * share).round() / 10.0;
        browser.await_script(
            "the share of this page",
            PAGE_LIMIT,
            &format!(
                "const row = document.querySelector(`#contribution-jobs [data-job='{job}']`); \
                 return row?.cells[1].textContent === '{shown} %' && row.cells[2].textContent === '{}'",
                own["tiles"]
            ),
        );
    }
    assert_eq!(browser.log(), "", "nothing was refused and nothing failed");
    (job, factor)
}

/// The result of the open job, which is the square of `factor`, is saved by a click and is right.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn download(browser: &Browser, factor: &Integers) {
    browser.await_script(
        "the link",
        PAGE_LIMIT,
        "return document.querySelector('#download-csv')?.checkVisibility()",
    );
    let csv = browser.download("#download-csv");
    assert_eq!(factor.product_fault(factor, &csv), None);
}

/// The node is killed: the page says so and which one. What `again` starts in its place has the page back.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn outlive(mut node: Node, browser: &Browser, again: impl FnOnce() -> Node) -> Node {
    let device = browser.script("return gemmesh.me.device", &[]);
    node.kill();
    browser.await_script(
        "the page to miss its node",
        PAGE_LIMIT,
        "return document.querySelector('#no-node').checkVisibility() && document.querySelector('#next-try').checkVisibility()",
    );
    let said = browser.text("#no-node");
    assert!(said.contains(&node.api.address), "{said}");
    drop(node);
    let node = again();
    until("the page to be back", PAGE_LIMIT, || {
        let devices = node.api.devices();
        let here = |entry: &&Value| entry["device"] == device && entry["state"] != "lost";
        let here = devices.iter().any(|entry| here(&entry));
        here.then_some(()).ok_or(format!("{devices:?}"))
    });
    browser.await_script(
        "the page to say so",
        PAGE_LIMIT,
        "return gemmesh.connection.phase === 'online' && !document.querySelector('#no-node').checkVisibility()",
    );
    node
}

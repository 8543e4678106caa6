//! What the page shows of jobs and results, in a real browser, compared with what the API says.
#![cfg(target_os = "linux")]

use std::process::Command;

use gemmesh_tests::integers::Integers;
use gemmesh_tests::node::JOB_LIMIT;
use gemmesh_tests::page::{PAGE_LIMIT, page};
use serde_json::json;

#[test]
fn the_arithmetic_of_the_page_is_right() {
    let tests = gemmesh_tests::root().join("tests/page");
    let run = Command::new("node").arg("--test").arg(tests).output();
    let run = run.expect("node starts: `make test` installs it");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stdout)
    );
}

#[test]
fn the_map_shows_who_computed_each_tile_and_says_the_same_in_words() {
    let (node, browser) = page();
    browser.await_script(
        "the page to be a member",
        PAGE_LIMIT,
        "return gemmesh.devices.some(({kind, state}) => kind === 'browser' && state !== 'lost')",
    );
    let factor = Integers::random(1500, 1500, 1);
    let id = node.api.matrix(&factor.npy());
    let job = node
        .api
        .submit(&json!({"a": id, "b": id, "name": "a picture"}));
    browser.await_script(
        "the job in the list",
        JOB_LIMIT,
        "return document.querySelector('.job-open')",
    );
    browser.click(".job-open");
    let status = node.api.done(&job);
    let total = status["tiles_total"].as_u64().expect("a number");
    browser.await_script(
        "all tiles on the map",
        JOB_LIMIT,
        &format!("return document.querySelector('#map')?.dataset.tiles === '{total}'"),
    );
    let told = node.api.get(&format!("/api/jobs/{job}/tiles"));
    let told = told.expect(200).json();
    assert_eq!(told["tiles"].as_array().map(Vec::len), Some(total as usize));
    for part in status["contributions"].as_array().expect("a list") {
        let (device, tiles) = (part["device"].as_str(), part["tiles"].as_u64());
        let devices = told["devices"].as_array().expect("a list");
        let place = devices.iter().position(|d| d["device"].as_str() == device);
        let own = told["tiles"].as_array().expect("a list").iter();
        let own = own.filter(|tile| tile[1].as_u64() == place.map(|place| place as u64));
        assert_eq!(Some(own.count() as u64), tiles, "{part}");
        let figures = browser.script(
            "return document.querySelector(`#map-legend [data-device='${arguments[0]}'] .legend-figures`).textContent",
            &[json!(device)],
        );
        let figures = figures.as_str().expect("a text").to_owned();
        let number = figures.split(' ').next().unwrap_or_default();
        assert_eq!(number.parse().ok(), tiles, "{figures}");
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
    browser.click("#tiles summary");
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
    assert_eq!(browser.log(), "", "nothing was refused and nothing failed");
}

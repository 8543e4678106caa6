//! Pictures of the page in each state, narrow and wide, light and dark, in `target/screenshots`; and that it
//! is nowhere wider than the screen. The README's pictures come from here.
#![cfg(target_os = "linux")]

use std::fs;

use gemmesh_tests::browser::Browser;
use gemmesh_tests::integers::Integers;
use gemmesh_tests::node::{JOB_LIMIT, Options, await_mesh, fresh_mesh};
use gemmesh_tests::page::{PAGE_LIMIT, axe, show};
use gemmesh_tests::walks;
use serde_json::json;

/// A phone, and a small laptop.
const SIZES: [(&str, u32, u32); 2] = [("phone", 390, 844), ("desktop", 1280, 800)];

#[test]
fn the_page_fits_every_screen_in_each_state_and_is_kept_as_pictures() {
    let mesh = fresh_mesh();
    let node = Options::loopback("kitchen", &mesh).arg("--tls").start();
    let other = Options::loopback("attic", &mesh);
    let other = other.arg(format!("--peer={}", node.api.address)).start();
    await_mesh(&[&node, &other], 0);
    let browser = Browser::here();
    show(&browser, &format!("http://{}/", node.api.address));
    browser.script(
        "const name = document.querySelector('#device-name'); \
         name.value = 'Berta’s tablet'; name.dispatchEvent(new Event('change'))",
        &[],
    );
    await_mesh(&[&node, &other], 1);
    let mut found = Vec::new();
    let mut keep = |state: &str| {
        found.extend(pictures(&browser, state));
        let state = format!("{state}: {}", axe(&browser));
        found.extend(Some(state).filter(|state| !state.ends_with(": ")));
    };
    keep("empty");

    walks::multiply_cells(&browser);
    keep("small");

    let factor = Integers::random(2500, 2500, 11);
    let id = node.api.matrix(&factor.npy());
    let job = node
        .api
        .submit(&json!({"a": id, "b": id, "name": "Distances of 2,500 stars"}));
    browser.script("location.hash = `#job=${arguments[0]}`", &[json!(job)]);
    browser.await_script(
        "a part of the map",
        JOB_LIMIT,
        &format!(
            "const job = gemmesh.jobs['{job}']; \
             return Number(document.querySelector('#map')?.dataset.tiles) > job?.tiles_total / 4"
        ),
    );
    keep("busy");
    node.api.done(&job);
    browser.await_script(
        "the result",
        JOB_LIMIT,
        "return document.querySelector('#heat')?.dataset.cells && document.querySelector('#stream-list li')",
    );
    keep("done");

    let part = json!([{"a": [[1]], "b": [[2]]}, {"a": [[1, 2]], "b": [[1]]}]);
    let batch = node
        .api
        .submit(&json!({"batch": part, "name": "Two products"}));
    node.api.done(&batch);
    browser.script("location.hash = `#job=${arguments[0]}`", &[json!(batch)]);
    browser.await_script(
        "what failed",
        JOB_LIMIT,
        "return document.querySelector('#job-error')?.textContent.includes('number 1')",
    );
    browser.fill("#cell-a-0-1", "two");
    browser.click("#run");
    browser.await_script(
        "the problem",
        PAGE_LIMIT,
        "return document.querySelector('#problem-a').checkVisibility()",
    );
    keep("failed");

    browser.click("#add-device");
    keep("alone");
    browser.click("#join-close");

    browser.open(&format!("http://{}/ca", node.api.address));
    browser.await_script(
        "the steps",
        PAGE_LIMIT,
        "return document.querySelector('#authority-get')",
    );
    keep("https");

    show(&browser, &format!("http://{}/", node.api.address));
    // Where both are gone there is nowhere to move to.
    drop((node, other));
    browser.await_script(
        "the page to miss its node",
        PAGE_LIMIT,
        "return document.querySelector('#no-node').checkVisibility()",
    );
    keep("no-node");
    assert_eq!(found, Vec::<String>::new());
}

/// Keeps pictures of a state; what does not fit.
fn pictures(browser: &Browser, state: &str) -> Vec<String> {
    let place = gemmesh_tests::root().join("target/screenshots");
    fs::create_dir_all(&place).expect("target is ours");
    let mut found = Vec::new();
    for (name, width, height) in SIZES {
        for (scheme, dark) in [("light", false), ("dark", true)] {
            browser.show_as(width, height, dark);
            // What is drawn follows the size with the next frame.
            browser.script(
                "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))",
                &[],
            );
            let file = place.join(format!("{state}-{name}-{scheme}.png"));
            fs::write(file, browser.picture()).expect("target is ours");
        }
        let wide = browser.script("return document.documentElement.scrollWidth", &[]);
        if wide.as_u64() > Some(width.into()) {
            found.push(format!("{state} on a {name} is {wide} wide"));
        }
    }
    found
}

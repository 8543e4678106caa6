//! What the page shows of jobs and results, in a real browser, compared with what the API says.
#![cfg(target_os = "linux")]

use std::process::Command;

use gemmesh_tests::browser::Browser;
use gemmesh_tests::integers::Integers;
use gemmesh_tests::node::{JOB_LIMIT, Options, await_mesh, fresh_mesh};
use gemmesh_tests::page::{PAGE_LIMIT, page, show};
use gemmesh_tests::walks;
use serde_json::json;

#[test]
fn the_arithmetic_of_the_page_is_right() {
    let tests = std::fs::read_dir(gemmesh_tests::root().join("tests/page")).expect("a directory");
    let tests = tests.map(|entry| entry.expect("an entry").path());
    let tests = tests.filter(|path| path.to_string_lossy().ends_with(".test.mjs"));
    let run = Command::new("node").arg("--test").args(tests).output();
    let run = run.expect("node starts: `make test` installs it");
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stdout)
    );
}

#[test]
fn the_map_shows_who_computed_each_tile_and_says_the_same_in_words_and_the_result_is_saved() {
    let (node, browser) = page();
    walks::join(&node, &browser);
    let (_job, factor) = walks::watch(&node, &browser);
    walks::download(&browser, &factor);
}

#[test]
fn a_large_result_is_a_heat_map_that_can_be_zoomed_to_each_element() {
    let (node, browser) = page();
    let factor = Integers::random(300, 300, 2);
    let id = node.api.matrix(&factor.npy());
    let job = node.api.submit(&json!({"a": id, "b": id}));
    let status = node.api.done(&job);
    browser.script("location.hash = `#job=${arguments[0]}`", &[json!(job)]);
    browser.await_script(
        "all of the result",
        JOB_LIMIT,
        "return document.querySelector('#heat')?.dataset.cells === '128x128'",
    );
    let result = status["result"].as_str().expect("an id");
    let picture = node.api.get(&format!("/api/matrices/{result}/picture"));
    let picture = picture.expect(200).json();
    for name in ["min", "max", "norm"] {
        assert_eq!(
            browser.script(
                "return document.querySelector(`#result-${arguments[0]}`).title",
                &[json!(name)]
            ),
            json!(picture[name].to_string()),
            "{name}"
        );
    }
    for _ in 0..2 {
        browser.click("#heat-zoomIn");
        browser.await_script("the window", PAGE_LIMIT, "return !gemmesh.heat.loading");
    }
    browser.await_script(
        "a cell for each element",
        PAGE_LIMIT,
        "return document.querySelector('#heat').dataset.cells === '75x75'",
    );
    browser.script(
        "const heat = document.querySelector('#heat'); heat.focus(); \
         heat.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true, cancelable: true }));",
        &[],
    );
    let (row, col) = (113, 113);
    let exact = format!("/api/matrices/{result}/picture?row={row}&col={col}&rows=1&cols=1");
    let exact = node.api.get(&exact);
    let value = exact.expect(200).json()["cells"][0][0].clone();
    let value = value.as_str().expect("an integer beyond 2^53 is a text");
    browser.await_script(
        "the value",
        PAGE_LIMIT,
        &format!(
            "return document.querySelector('#heat-about').textContent === 'Row {row}, column {col}: {value}'"
        ),
    );
    assert_eq!(browser.log(), "", "nothing was refused and nothing failed");
}

#[test]
fn a_job_is_shared_by_a_link_copied_as_code_and_run_again() {
    let (node, browser) = page();
    browser.script(
        "window.copied = []; document.execCommand = () => { \
           copied.push(document.querySelector('textarea').value); return true; }",
        &[],
    );
    browser.click("#run");
    browser.await_script(
        "the job to be done",
        JOB_LIMIT,
        "return document.querySelector('#job-state').textContent === 'done'",
    );
    let first = browser.script("return gemmesh.openJob", &[]);
    for name in ["link", "command", "numpy"] {
        browser.click(&format!("#copy-{name}"));
    }
    let copied = browser.script("return copied", &[]);
    let copied = |index: usize| copied[index].as_str().unwrap_or_default().to_owned();
    let job = first.as_str().expect("an id");
    let link = format!("http://{}/#job={job}", node.api.address);
    assert_eq!(copied(0), link);
    assert!(copied(1).starts_with(&format!("gemmesh result {job} ")));
    assert!(
        copied(2).contains("a = np.array([[1, 2, 3],"),
        "{}",
        copied(2)
    );
    browser.click("#job-again");
    browser.await_script(
        "another job to be done",
        JOB_LIMIT,
        &format!(
            "return gemmesh.openJob !== '{job}' && gemmesh.jobs[gemmesh.openJob]?.state === 'done'"
        ),
    );
    browser.open("about:blank");
    browser.open(&link);
    browser.await_script(
        "the job of the link",
        JOB_LIMIT,
        &format!("return document.querySelector('#job').dataset.job === '{job}' && document.querySelector('#result-table td')"),
    );
    browser.open("about:blank");
    browser.open(&format!(
        "http://{}/#job={}",
        node.api.address,
        "0".repeat(32)
    ));
    browser.await_script(
        "what is wrong with the link",
        PAGE_LIMIT,
        "return document.querySelector('#lost-job').checkVisibility()",
    );
}

#[test]
fn the_picture_of_the_mesh_has_every_device_and_the_speed_of_each_measured_link() {
    let mesh = fresh_mesh();
    let home = Options::loopback("home", &mesh).start();
    let other = Options::loopback("other", &mesh);
    let other = other.arg("--peer").arg(&home.api.address).start();
    await_mesh(&[&home, &other], 0);
    let links = || {
        let answer = home.api.get("/api/links");
        answer.expect(200).json().clone()
    };
    let told = gemmesh_tests::wait::until("the link to be measured", PAGE_LIMIT, || {
        let told = links();
        let measured = told["links"][0]["device"] == json!(other.device());
        measured.then_some(told.clone()).ok_or(told.to_string())
    });
    assert_eq!(told["node"], json!(home.device()));
    assert!(told["links"][0]["bytes_per_second"].as_f64() > Some(0.0));
    // Who ran a job tells who computed it, whoever is asked, also when all has ended.
    let factor = Integers::random(900, 900, 4);
    let id = home.api.matrix(&factor.npy());
    let job = home.api.submit(&json!({"a": id, "b": id}));
    let status = other.api.done(&job);
    for node in [&home, &other] {
        let told = node.api.get(&format!("/api/jobs/{job}/tiles"));
        let told = told.expect(200).json();
        assert_eq!(told["node"], status["coordinator"]);
        let tiles = told["tiles"].as_array().map(Vec::len);
        assert_eq!(
            tiles.map(|tiles| tiles as u64),
            status["tiles_total"].as_u64()
        );
    }
    let browser = Browser::here();
    show(&browser, &format!("http://{}/", home.api.address));
    browser.await_script(
        "two nodes and a page, and the speed between the nodes",
        PAGE_LIMIT,
        "const count = (css) => document.querySelectorAll(`#mesh-picture ${css}`).length; \
         return count('circle.mesh-device') === 2 && count('rect.mesh-device') === 1 \
           && count('.mesh-line') === 2 && /B\\/s$/.test(document.querySelector('.mesh-rate')?.textContent)",
    );
}

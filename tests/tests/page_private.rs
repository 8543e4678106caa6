//! Private products from the page, with the page itself as one of the helpers: what it submits, computes and shows.
#![cfg(target_os = "linux")]

use gemmesh_tests::browser::Browser;
use gemmesh_tests::node::{JOB_LIMIT, Options, fresh_mesh};
use gemmesh_tests::page::{PAGE_LIMIT, show};
use gemmesh_tests::walks;

#[test]
fn a_page_submits_a_private_product_and_computes_a_share_of_it() {
    let mesh = fresh_mesh();
    let node = Options::loopback("keeper", &mesh).arg("--no-mdns").start();
    let helper = |name: &str| {
        let options = Options::loopback(name, &mesh).arg("--no-mdns");
        options.arg("--peer").arg(&node.api.address).start()
    };
    let _helpers = [helper("one"), helper("two")];
    let browser = Browser::here();
    show(&browser, &format!("http://{}", node.api.address));
    // All three are needed, so the page has a share of it.
    node.api.await_devices(4);
    browser.script(
        "const mode = document.querySelector('#mode'); mode.value = 'private'; mode.dispatchEvent(new Event('change'));",
        &[],
    );
    walks::multiply_cells(&browser);
    let csv = browser.download(".downloads a[data-format=csv]");
    assert_eq!(String::from_utf8_lossy(&csv).trim(), "58,64\n139,154");
    let shown = browser.await_script(
        "who learns what",
        PAGE_LIMIT,
        "return document.querySelector('#job-sharing')?.innerText",
    );
    let shown = shown.as_str().expect("text");
    assert!(shown.contains("no device learns anything"), "{shown}");

    let map = browser.await_script(
        "the words about the map",
        PAGE_LIMIT,
        "return document.body.innerText.includes('put these tiles together') && document.body.innerText",
    );
    let map = map.as_str().expect("text");
    assert!(!map.contains("took this job over"), "{map}");

    let jobs = node.api.get("/api/jobs").expect(200).json();
    let jobs = jobs.as_array().expect("a list");
    assert_eq!(jobs.len(), 1, "shares are no jobs for people: {jobs:#?}");
    let job = &jobs[0];
    assert_eq!(
        (&job["mode"], &job["state"]),
        (&"private".into(), &"done".into())
    );
    let parts = job["contributions"].as_array().expect("a list");
    let kinds = parts
        .iter()
        .filter(|part| part["kind"] == "browser")
        .count();
    assert_eq!((parts.len(), kinds), (3, 1), "{job:#}");
    // Without what this tab keeps there is nothing to see.
    let id = job["job"].as_str().expect("an id");
    let path = format!("/api/jobs/{id}/result?format=csv");
    node.api.get(&path).expect(403);
    browser.click("#job-again");
    let again = format!("return gemmesh.openJob !== '{id}' && gemmesh.result?.rows?.length === 2");
    browser.await_script("the same product again", JOB_LIMIT, &again);
}

//! How devices come to the mesh through the page and leave it, and what the page says before a job starts.
#![cfg(target_os = "linux")]

use gemmesh_tests::node::JOB_LIMIT;
use gemmesh_tests::page::{PAGE_LIMIT, page, show};
use serde_json::json;

#[test]
fn a_page_leaves_when_it_is_told_to_and_joins_again() {
    let (node, browser) = page();
    let there = |state: &str| {
        let nodes = node.api.get("/api/nodes");
        let nodes = nodes.expect(200).json().clone();
        let pages = nodes.as_array().expect("a list").iter();
        let mut pages = pages.filter(|entry| entry["kind"] == "browser");
        pages.any(|entry| entry["state"] == state)
    };
    browser.await_script(
        "the page to be measured",
        PAGE_LIMIT,
        "return !document.querySelector('#leave').disabled",
    );
    browser.click("#leave");
    browser.await_script(
        "the page to say so",
        PAGE_LIMIT,
        "return document.querySelector('#contribution-status').dataset.value === 'left'",
    );
    gemmesh_tests::wait::until("the mesh to know", PAGE_LIMIT, || {
        there("lost")
            .then_some(())
            .ok_or_else(|| "it is there".to_owned())
    });
    // Who computes nothing can multiply all the same.
    browser.click("#run");
    browser.await_script(
        "the product of the example",
        JOB_LIMIT,
        "return [...document.querySelectorAll('#result-table td')].map((td) => td.textContent).join() === '58,64,139,154'",
    );
    browser.click("#leave");
    browser.await_script(
        "the page to be back",
        PAGE_LIMIT,
        "return gemmesh.connection.phase === 'online' && document.querySelector('#contribution-status').dataset.value !== 'left'",
    );
    gemmesh_tests::wait::until("the mesh to have it", PAGE_LIMIT, || {
        there("ready")
            .then_some(())
            .ok_or_else(|| "it is not there".to_owned())
    });
}

#[test]
fn a_node_that_nobody_else_reaches_offers_no_code() {
    let (_node, browser) = page();
    browser.await_script("the answer", PAGE_LIMIT, "return gemmesh.joining");
    browser.click("#add-device");
    browser.await_script(
        "why there is none",
        PAGE_LIMIT,
        "return document.querySelector('#join-alone').checkVisibility() && !document.querySelector('#qr').checkVisibility()",
    );
    browser.click("#join-close");
    assert_eq!(
        browser.script("return document.querySelector('#join').open", &[]),
        json!(false)
    );
}

#[test]
fn what_a_job_needs_is_told_before_it_starts() {
    let (node, browser) = page();
    browser.click("#preset-1000");
    browser.await_script(
        "the needs",
        PAGE_LIMIT,
        "return document.querySelector('#needs').textContent.includes('22.9 MiB') && document.querySelector('#predicted').textContent",
    );
    show(&browser, &format!("http://{}/?again", node.api.address));
    let file = "const carried = new DataTransfer(); \
        for (const name of ['a.csv', 'b.csv']) carried.items.add(new File(['1,2\\n3,4\\n'], name)); \
        const field = document.querySelector('#file-a'); field.files = carried.files; \
        field.dispatchEvent(new Event('change'));";
    browser.script(file, &[]);
    browser.await_script(
        "the node's prediction",
        PAGE_LIMIT,
        "return gemmesh.outlook?.rows === 2 && document.querySelector('#predicted').textContent.startsWith('Predicted: ')",
    );
}

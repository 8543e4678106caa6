//! The page for everybody: nothing that axe-core knows of is in the way, in each state.
#![cfg(target_os = "linux")]

use gemmesh_tests::integers::Integers;
use gemmesh_tests::node::JOB_LIMIT;
use gemmesh_tests::page::{PAGE_LIMIT, axe, page};
use serde_json::json;

#[test]
fn nothing_is_in_the_way_of_anybody_in_any_state() {
    let (node, browser) = page();
    let mut found = vec![("empty", axe(&browser))];
    browser.click("#run");
    browser.await_script(
        "a small result",
        JOB_LIMIT,
        "return document.querySelector('#result-table td')",
    );
    found.push(("small result", axe(&browser)));
    let factor = Integers::random(200, 200, 3);
    let id = node.api.matrix(&factor.npy());
    let job = node.api.submit(&json!({"a": id, "b": id}));
    node.api.done(&job);
    browser.script("location.hash = `#job=${arguments[0]}`", &[json!(job)]);
    browser.await_script(
        "a large result",
        JOB_LIMIT,
        "return document.querySelector('#heat')?.dataset.cells && document.querySelector('#stream-list li')",
    );
    browser.click("#tiles summary");
    found.push(("large result", axe(&browser)));
    browser.fill("#cell-a-0-1", "two");
    browser.click("#run");
    browser.await_script(
        "the problem",
        PAGE_LIMIT,
        "return document.querySelector('#problem-a').checkVisibility()",
    );
    found.push(("wrong cell", axe(&browser)));
    browser.click("#add-device");
    found.push(("adding a device", axe(&browser)));
    browser.click("#join-close");
    drop(node);
    browser.await_script(
        "the page to miss its node",
        PAGE_LIMIT,
        "return gemmesh.connection.phase === 'waiting'",
    );
    found.push(("no node", axe(&browser)));
    found.retain(|(_, found)| !found.is_empty());
    assert_eq!(found, [], "axe-core found something");
}

//! The page in Firefox, as on any device of a room: from another network namespace, over plain http.
#![cfg(target_os = "linux")]

use gemmesh_tests::browser::{Browser, Maker};
use gemmesh_tests::netns::{self, Lan};
use gemmesh_tests::node::{Options, fresh_mesh};
use gemmesh_tests::page::show;
use gemmesh_tests::walks;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn in_firefox_people_join_multiply_watch_save_and_outlive_their_node() {
    if !netns::available() {
        return;
    }
    let mut lan = Lan::new();
    let (home, client) = (lan.host("home"), lan.host("client"));
    let (mesh, data) = (fresh_mesh(), TempDir::new().expect("a temporary directory"));
    let start = || {
        let options = Options::on(&home, "home", &mesh);
        options.data_dir(data.path()).start()
    };
    let node = start();
    let browser = Browser::of(Maker::Firefox, &client);
    show(&browser, &format!("http://{}/", node.api.address));
    assert_eq!(browser.script("return isSecureContext", &[]), json!(false));
    walks::join(&node, &browser);
    walks::multiply_cells(&browser);
    let (job, factor) = walks::watch(&node, &browser);
    let lost = browser.script(
        "const texts = gemmesh.log.map(({ text }) => text); return texts.some((text) => /lost/.test(text)) ? texts.join('\\n') : ''",
        &[],
    );
    assert_eq!(lost, json!(""), "the connection held");
    let status = node.api.job(&job);
    let parts = status["contributions"].as_array().expect("a list");
    let page = parts.iter().find(|part| part["kind"] == "browser");
    assert!(
        page.is_some_and(|part| part["tiles"].as_u64() > Some(0)),
        "{status:#}; the page: {}",
        browser.script("return gemmesh.log.map(({text}) => text).join('\\n')", &[])
    );
    walks::download(&browser, &factor);
    let _node = walks::outlive(node, &browser, start);
}

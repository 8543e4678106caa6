//! The page over https, as on a phone whose person has installed the node's certificate: from another
//! network namespace, in a Chromium that trusts that authority and nothing it would not trust otherwise.
#![cfg(target_os = "linux")]

use gemmesh_tests::browser::Browser;
use gemmesh_tests::integers::Integers;
use gemmesh_tests::netns::{self, Host, Lan};
use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::page::{PAGE_LIMIT, axe, show};
use serde_json::json;

/// A node that answers https too, and where its page is looked at.
fn secure() -> Option<(Lan, Node, Host)> {
    if !netns::available() {
        return None;
    }
    let mut lan = Lan::new();
    let (home, client) = (lan.host("home"), lan.host("client"));
    let node = Options::on(&home, "home", &fresh_mesh())
        .arg("--tls")
        .start();
    Some((lan, node, client))
}

fn trusting(node: &Node, client: &Host) -> Browser {
    let authority = node.api.get("/ca").expect(200).body.clone();
    Browser::trusting(client, &authority)
}

#[test]
fn over_https_the_page_computes_stays_awake_and_opens_without_a_node() {
    let Some((_lan, mut node, client)) = secure() else {
        return;
    };
    let browser = trusting(&node, &client);
    let url = format!("https://{}/", node.api.address);
    show(&browser, &url);
    assert_eq!(
        browser.script("return [isSecureContext, location.protocol].join()", &[]),
        json!("true,https:")
    );
    await_mesh(&[&node], 1);

    // It computes: its blocks and tiles go over the encrypted WebSocket, the page has no other way.
    let factor = Integers::random(900, 900, 7);
    let id = node.api.matrix(&factor.npy());
    let job = node.api.submit(&json!({"a": id, "b": id}));
    let status = node.api.done(&job);
    let parts = status["contributions"].as_array().expect("a list");
    let page = parts.iter().find(|part| part["kind"] == "browser");
    assert!(
        page.is_some_and(|part| part["tiles"].as_u64() > Some(0)),
        "{status:#}"
    );
    assert_eq!(
        factor.product_fault(&factor, &node.api.result(&job, "csv")),
        None
    );
    // What others are given leads them here although they may not trust the certificate.
    browser.await_script(
        "the plain address",
        PAGE_LIMIT,
        &format!(
            "return gemmesh.joining?.origin === 'http://{}'",
            node.api.address
        ),
    );

    // The screen: a lock, taken and given back.
    let awake = |wanted: &str| {
        browser.await_script(
            "the screen",
            PAGE_LIMIT,
            &format!("return gemmesh.me.awakeWay === 'lock' && gemmesh.me.awake === '{wanted}'"),
        );
    };
    browser.click("#keep-awake");
    awake("on");
    browser.click("#pause");
    awake("off");
    browser.click("#pause");
    awake("on");
    browser.click("#keep-awake");
    awake("off");

    // The service worker has the page from the second time on.
    browser.await_script(
        "the page to be kept",
        PAGE_LIMIT,
        "return navigator.serviceWorker.ready.then(({ active }) => active.state === 'activated')",
    );
    assert_eq!(
        browser.script("return navigator.serviceWorker.controller", &[]),
        json!(null)
    );
    show(&browser, &url);
    let controlled = "return new URL(navigator.serviceWorker.controller.scriptURL).pathname";
    assert_eq!(browser.script(controlled, &[]), json!("/sw.js"));
    let kept = browser.script(
        "return caches.keys().then(async ([name, other]) => { \
           const paths = (await (await caches.open(name)).keys()).map(({ url }) => new URL(url).pathname); \
           return [other ?? 'one', paths.some((path) => path.startsWith('/api')), \
             paths.filter((path) => path.endsWith('.wasm')).length, paths.includes('/index.html')].join(); })",
        &[],
    );
    assert_eq!(
        kept,
        json!("one,false,1,true"),
        "files of the page, one kernel"
    );
    // The API never comes from it.
    let fresh = node.api.submit(&json!({"a": [[1]], "b": [[2]]}));
    node.api.done(&fresh);
    let state = format!(
        "return fetch('/api/jobs/{fresh}').then((r) => r.json()).then(({{ state }}) => state)"
    );
    assert_eq!(browser.script(&state, &[]), json!("done"));

    node.kill();
    browser.open("about:blank");
    browser.open(&url);
    browser.await_script(
        "the page to say that there is no node",
        PAGE_LIMIT,
        "return document.querySelector('#no-node')?.checkVisibility()",
    );
    let said = browser.text("#no-node");
    assert!(said.contains(&node.api.address), "{said}");
    assert_eq!(axe(&browser), "");
    let state = "return fetch('/api/jobs').then(() => 'an answer', () => 'none')";
    assert_eq!(browser.script(state, &[]), json!("none"));
}

#[test]
fn over_https_a_page_computes_for_nodes_that_have_none_through_its_own() {
    let Some((mut lan, node, client)) = secure() else {
        return;
    };
    let plain = Options::on(&lan.host("plain"), "plain", &node.mesh).start();
    await_mesh(&[&node, &plain], 0);
    let browser = trusting(&node, &client);
    show(&browser, &format!("https://{}/", node.api.address));
    await_mesh(&[&node, &plain], 1);
    let factor = Integers::random(2_000, 2_000, 8);
    let id = plain.api.matrix(&factor.npy());
    let job = plain.api.submit(&json!({"a": id, "b": id}));
    let status = plain.api.done(&job);
    assert_eq!(status["coordinator"], json!(plain.device()));
    let parts = status["contributions"].as_array().expect("a list");
    let page = parts.iter().find(|part| part["kind"] == "browser");
    assert!(
        page.is_some_and(|part| part["tiles"].as_u64() > Some(0)),
        "{status:#}"
    );
    let csv = plain.api.result(&job, "csv");
    assert_eq!(factor.product_fault(&factor, &csv), None);
}

#[test]
fn the_steps_to_https_are_shown_on_plain_http_and_lead_to_the_page() {
    let Some((_lan, node, client)) = secure() else {
        return;
    };
    let browser = trusting(&node, &client);
    let address = &node.api.address;
    show(&browser, &format!("http://{address}/"));
    assert_eq!(browser.script("return isSecureContext", &[]), json!(false));
    // Nothing of the secure page is here, and nothing complains.
    assert_eq!(
        browser.script(
            "return [typeof navigator.serviceWorker, gemmesh.me.awakeWay, document.querySelector('#install').hidden].join()",
            &[]
        ),
        json!("undefined,video,true")
    );
    browser.click("#keep-awake");
    browser.await_script(
        "the video",
        PAGE_LIMIT,
        "const video = document.querySelector('.awake-video'); \
         return gemmesh.me.awake === 'on' && !video.paused && video.readyState >= 2",
    );
    browser.click("#leave");
    browser.await_script(
        "the video to rest",
        PAGE_LIMIT,
        "return gemmesh.me.awake === 'off' && document.querySelector('.awake-video').paused",
    );
    assert_eq!(browser.log(), "", "nothing was refused and nothing failed");
    browser.await_script("the links", PAGE_LIMIT, "return gemmesh.joining");
    browser.click("#add-device");
    browser.await_script(
        "the code of the plain address and the way to https",
        PAGE_LIMIT,
        &format!(
            "return document.querySelector('#join-url').href === 'http://{address}/' \
               && document.querySelector('#join-https').checkVisibility()"
        ),
    );
    browser.click("#join-https");
    let told = node.api.get("/api/join").expect(200).json();
    browser.await_script(
        "the fingerprint",
        PAGE_LIMIT,
        &format!(
            "return document.querySelector('#authority-fingerprint')?.textContent === '{}'",
            told["authority"]["fingerprint"].as_str().expect("a text")
        ),
    );
    assert_eq!(axe(&browser), "");
    assert_eq!(browser.log(), "", "nothing was refused and nothing failed");
    browser.click("#authority-open");
    browser.await_script(
        "the page over https",
        PAGE_LIMIT,
        "return isSecureContext && window.gemmesh?.connection.phase === 'online'",
    );
    // Who does not trust the authority is warned by the browser.
    let stranger = Browser::on(&client);
    stranger.open(&format!("https://{address}/"));
    let shown = "return document.getElementById('multiply-place') !== null";
    assert_eq!(stranger.script(shown, &[]), json!(false));
}

//! A node and its page, for tests of what people do there.

use std::time::Duration;

use crate::browser::Browser;
use crate::node::{Node, Options, fresh_mesh};

/// The page has joined its node within this.
pub const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// A node, and its page in a browser, connected.
pub fn page() -> (Node, Browser) {
    let node = Options::loopback("home", &fresh_mesh()).start();
    let browser = Browser::here();
    show(&browser, &format!("http://{}/", node.api.address));
    (node, browser)
}

/// Opens a page and waits until it is connected.
pub fn show(browser: &Browser, url: &str) {
    browser.open(url);
    browser.await_script(
        "the page to be online",
        PAGE_LIMIT,
        "return window.gemmesh?.connection.phase === 'online'",
    );
}

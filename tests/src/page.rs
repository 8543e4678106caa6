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

/// What axe-core finds wrong with the page as it is now, one line each.
///
/// # Panics
/// When it is not installed.
pub fn axe(browser: &Browser) -> String {
    let path = crate::root().join("tests/page/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(&path);
    let axe = axe.expect("no axe-core: `make test` installs it, or scripts/bootstrap.sh page");
    browser.script(&axe, &[]);
    let found = browser.script(
        "return axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => \
           violations.map(({ id, help, nodes }) => \
             `${id}: ${help}: ${nodes.map(({ target }) => target.join(' ')).join(', ')}`).join('\\n'))",
        &[],
    );
    found.as_str().expect("a text").to_owned()
}

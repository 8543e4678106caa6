//! A node beside a browser's page.

use std::time::Duration;

use gemmesh_tests::browser::Browser;
use gemmesh_tests::node::{Options, fresh_mesh};
use serde_json::{Value, json};

use super::watch::Watch;
use super::{alone, count, operands, run, seconds};

/// The page has joined its node within this.
const PAGE_LIMIT: Duration = Duration::from_secs(60);

/// One node of one thread beside headless Chromium with one worker, both operands cached, against the
/// sum of what they do alone: the node in a job of its own, the page by its kernel's speed in the job.
pub fn measure(edge: usize, runs: usize) {
    println!(
        "{edge} × {edge} f64, a node of one thread beside Chromium with one worker, {runs} runs:"
    );
    let watch = Watch::start();
    let lone = alone(Options::loopback("lone", &fresh_mesh()));
    let home = alone(Options::loopback("home", &fresh_mesh()).arg("--backups=0"));
    let ids = operands(&[&lone.api, &home.api], edge, 300);
    let one = run(&lone.api, &ids[0]);
    let gflops = |status: &Value| 2e-9 * (edge as f64).powi(3) / seconds(status);
    let browser = Browser::here();
    browser.open(&format!("http://{}/", home.api.address));
    browser.await_script(
        "the page to be online",
        PAGE_LIMIT,
        "return window.gemmesh?.connection.phase === 'online'",
    );
    browser.script(
        "const threads = document.querySelector('#threads'); \
         threads.value = 1; threads.dispatchEvent(new Event('change'));",
        &[],
    );
    home.api.await_devices(2);
    for repeat in 0..=runs {
        let both = run(&home.api, &ids[1]);
        let page = both["contributions"].as_array().expect("a list").iter();
        let page = page.clone().find(|part| part["kind"] == "browser");
        let Some(page) = page else {
            println!("  the page computed nothing in {:.2} s", seconds(&both));
            continue;
        };
        let kernel = count(page, "mflops") / 1e3;
        let sum = gflops(&one) + kernel;
        println!(
            "  {}node alone {:.1} GFLOP/s, the page's kernel {kernel:.1}, together {:.1}: {:.2} of the sum; {:.0} MB sent",
            if repeat == 0 { "nothing cached: " } else { "" },
            gflops(&one),
            gflops(&both),
            gflops(&both) / sum,
            count(&both, "bytes_sent") / 1e6
        );
    }
    // Before the browser ends: what its processes have used can not be told afterwards.
    watch.finish();
    assert_eq!(
        browser.log(),
        json!("").as_str().expect("text"),
        "the page is fine"
    );
}

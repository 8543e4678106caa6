//! Which of its two builds a page takes: the page's own probe, asked in each browser.
#![cfg(target_arch = "wasm32")]

use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

/// Its line is also what `scripts/wasm-test.sh` asks before it runs the other build.
#[wasm_bindgen_test]
fn the_page_takes_a_build_that_runs_here() {
    let probe = include_str!("../../www/js/feature-detect.js").replace("export ", "");
    let choice = js_sys::eval(&[&probe, "detectBuild();"].concat());
    let choice = choice.expect("the probe runs").as_string();
    let choice = choice.expect("this browser runs one of the builds");
    console_log!("the page takes: {choice}");
    if cfg!(target_feature = "relaxed-simd") {
        assert_eq!(choice, "relaxed");
    }
}

//! The page as a person uses it, in a real browser on the loopback address.
#![cfg(target_os = "linux")]

use gemmesh_tests::integers::Integers;
use gemmesh_tests::node::JOB_LIMIT;
use gemmesh_tests::page::{PAGE_LIMIT, page};
use gemmesh_tests::walks;
use serde_json::json;

/// Drops files, `[name, text]` each, on the element that a selector finds.
const DROP: &str = "const carried = new DataTransfer(); \
    for (const [name, text] of arguments[1]) carried.items.add(new File([text], name)); \
    const target = document.querySelector(arguments[0]); \
    for (const type of ['dragenter', 'dragover', 'drop']) { \
      const event = new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: carried}); \
      target.dispatchEvent(event); \
      if (!event.defaultPrevented) return `${type} is left to the browser`; \
    } \
    return document.querySelectorAll('.dropping').length";

#[test]
fn typed_cells_are_multiplied_and_the_result_is_shown() {
    let (node, browser) = page();
    walks::join(&node, &browser);
    walks::multiply_cells(&browser);
}

#[test]
fn a_batch_is_one_job_in_the_list_and_the_page_computes_a_part_of_it() {
    let (node, browser) = page();
    browser.await_script(
        "the page to be a member",
        PAGE_LIMIT,
        "return gemmesh.devices.some(({kind, state}) => kind === 'browser' && state !== 'lost')",
    );
    let factor = Integers::random(400, 400, 1);
    let id = node.api.matrix(&factor.npy());
    let mut list = vec![json!({"a": id, "b": id}); 60];
    list[5] = json!({"a": id, "b": [[1]]});
    let taken = node
        .api
        .post("/api/jobs", &json!({"batch": list, "name": "sixty"}));
    let job = taken.expect(202).json()["job"]
        .as_str()
        .expect("an id")
        .to_owned();
    browser.await_script(
        "the batch in the list",
        JOB_LIMIT,
        "return document.querySelector('.job-shape')?.textContent === '60 products, int'",
    );
    let status = node.api.done(&job);
    let parts = status["contributions"].as_array().expect("a list").clone();
    let page = parts.iter().find(|part| part["kind"] == "browser");
    assert!(
        page.is_some_and(|part| part["tiles"].as_u64() > Some(0)),
        "{status:#}"
    );
    for index in [0, 4, 6, 31, 59] {
        let csv = node
            .api
            .get(&format!("/api/jobs/{job}/result?index={index}&format=csv"));
        assert_eq!(
            factor.product_fault(&factor, &csv.expect(200).body),
            None,
            "{index}"
        );
    }
    browser.await_script(
        "the batch to be shown as done",
        JOB_LIMIT,
        "return document.querySelector('.job .state')?.textContent === 'done'",
    );
    assert_eq!(
        browser.script(
            "return document.querySelectorAll('#jobs-list .job').length",
            &[]
        ),
        json!(1)
    );
    browser.click(".job-open");
    browser.await_script(
        "what failed",
        JOB_LIMIT,
        "return document.querySelector('#job-error').textContent.includes('number 5')",
    );
    browser.fill("#result-index", "7");
    browser.await_script(
        "the link to that product",
        JOB_LIMIT,
        "return document.querySelector('#download-npy').href.endsWith('format=npy&index=7')",
    );
}

#[test]
fn each_cell_that_is_no_number_is_marked_and_the_first_has_the_focus() {
    let (_node, browser) = page();
    browser.fill("#cell-a-0-1", "two");
    browser.fill("#cell-a-1-2", "1,5");
    browser.click("#run");
    let marked = "return [...document.querySelectorAll('[aria-invalid=true]')].map((cell) => cell.id).join()";
    browser.await_script("the cells to be marked", PAGE_LIMIT, marked);
    assert_eq!(browser.script(marked, &[]), json!("cell-a-0-1,cell-a-1-2"));
    assert_eq!(
        browser.script("return document.activeElement.id", &[]),
        json!("cell-a-0-1")
    );
    let problem = browser.text("#problem-a");
    assert!(
        problem.contains("two") && problem.contains("row 1, column 2"),
        "{problem}"
    );
}

#[test]
fn cells_stay_where_they_are_while_a_dimension_is_typed() {
    let (_node, browser) = page();
    let shown = "const field = document.querySelector('#dim-rows'); \
        field.value = ''; field.dispatchEvent(new Event('input')); \
        return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => \
          done(document.querySelector('#cell-a-0-0').checkVisibility()))))";
    assert_eq!(browser.script(shown, &[]), json!(true));
}

#[test]
fn files_that_are_dropped_anywhere_become_operands_with_a_preview() {
    let (_node, browser) = page();
    let files = json!([
        ["left.csv", "1,2,3\n4,5,6\n"],
        ["right.csv", "7,8\n9,10\n11,12\n"]
    ]);
    let dropped = browser.script(DROP, &[json!("#log"), files]);
    assert_eq!(
        dropped,
        json!(0),
        "nothing looks ready for a drop afterwards"
    );
    let texts = "return ['a', 'b'].map((name) => [...document.querySelectorAll(`#preview-${name} td`)] \
        .map((td) => td.textContent).join()).join(' ')";
    browser.await_script(
        "both previews",
        PAGE_LIMIT,
        &texts.replace("return ", "return '1,2,3,4,5,6 7,8,9,10,11,12' === "),
    );
    assert!(browser.text("#about-a").contains("left.csv"));
}

#[test]
fn two_files_that_do_not_fit_say_so_at_the_second() {
    let (_node, browser) = page();
    let files = json!([["left.csv", "1,2\n"], ["right.csv", "1,2\n"]]);
    browser.script(DROP, &[json!("#operand-a"), files]);
    browser.await_script(
        "the problem",
        PAGE_LIMIT,
        "return document.querySelector('#problem-b').checkVisibility()",
    );
    let problem = browser.text("#problem-b");
    assert!(
        problem.contains("2 columns") && problem.contains("1 row."),
        "{problem}"
    );
}

#[test]
fn names_are_text_and_the_page_keeps_to_its_own_policy() {
    let (node, browser) = page();
    let name = "<img src=x onerror=document.title=1>\u{202e}&amp;";
    let job = node
        .api
        .submit(&json!({"a": [[1]], "b": [[2]], "name": name}));
    browser.await_script(
        "the job in the list",
        PAGE_LIMIT,
        "return document.querySelector('.job-title')?.textContent",
    );
    assert_eq!(
        browser.script(
            "return document.querySelector('.job-title').textContent",
            &[]
        ),
        node.api.done(&job)["name"]
    );
    assert_eq!(
        browser.script(
            "return document.querySelectorAll('.job img, .log img').length",
            &[]
        ),
        json!(0)
    );
    assert_eq!(browser.log(), "", "nothing was refused and nothing failed");
}

#[test]
fn the_benchmark_shows_both_speeds_beside_the_limit_and_the_page_still_computes() {
    let (_node, browser) = page();
    browser.click("#bench");
    browser.await_script(
        "both speeds",
        PAGE_LIMIT,
        "return ['f64', 'f32'].every((dtype) => { \
           const shown = document.querySelector(`#bench-${dtype}`); \
           const [speed, limit] = [shown.dataset.value, shown.dataset.limit].map(Number); \
           return 0 < speed && speed <= limit && !shown.hidden && shown.textContent.includes('MFLOPS'); \
         }) && !document.querySelector('#bench').disabled",
    );
    assert_eq!(
        browser.script(
            "return document.querySelector('#bench-problem').hidden",
            &[]
        ),
        json!(true)
    );
    browser.click("#run");
    browser.await_script(
        "the product of the example",
        JOB_LIMIT,
        "return [...document.querySelectorAll('#result-table td')].map((td) => td.textContent).join() === '58,64,139,154'",
    );
}

#[test]
fn a_benchmark_whose_thread_is_taken_away_says_so_and_can_be_started_again() {
    let (_node, browser) = page();
    browser.script(
        "const threads = document.querySelector('#threads'); \
         threads.max = 2; threads.value = 2; threads.dispatchEvent(new Event('change')); \
         document.querySelector('#bench').click(); \
         threads.value = 1; threads.dispatchEvent(new Event('change'));",
        &[],
    );
    browser.await_script(
        "the button to come back",
        PAGE_LIMIT,
        "return window.gemmesh.me.bench && !window.gemmesh.me.bench.running && !document.querySelector('#bench').disabled",
    );
    browser.click("#bench");
    browser.await_script(
        "a speed",
        PAGE_LIMIT,
        "return Number(document.querySelector('#bench-f32').dataset.value) > 0",
    );
}

#[test]
fn a_slab_that_the_browser_has_no_memory_for_fails_its_tile_alone() {
    let (_node, browser) = page();
    browser.script(
        "window.heard = []; \
         window.Worker = class extends EventTarget { \
           postMessage({ type, sequence, buffer, into }) { \
             const data = type === 'init' ? { type: 'ready' } \
               : { type: 'slabDone', sequence, buffer, result: into && new Uint8Array(into, 0, 8) }; \
             setTimeout(() => this.dispatchEvent(new MessageEvent('message', { data }))); \
           } \
           terminate() {} \
         }; \
         import('/js/compute-pool.js').then(async ({ ComputePool }) => { \
           const pool = new ComputePool(null, '', { \
             done: (slot, ms, result) => heard.push(`${slot} ${result.length}`), \
             failed: (slot, why) => heard.push(`${slot} ${why ? 'failed' : ''}`), \
           }); \
           await pool.resize(4); \
           const one = new Uint8Array(1); \
           const slab = (rows) => ({ last: true, a: [{ block: one }], b: [], \
             spec: { rows, cols: 1, c: { dtype: 'f64', limbs: 1 } } }); \
           pool.compute(0, slab(1), () => ({ length: 2 ** 53 })); \
           pool.compute(1, slab(2 ** 50), (block) => block); \
           pool.compute(2, slab(2 ** 50), (block) => block); \
           pool.abort(2); \
           pool.compute(3, slab(1), (block) => block); \
         }).catch((error) => heard.push(String(error)));",
        &[],
    );
    browser.await_script(
        "two refusals and one result",
        PAGE_LIMIT,
        "return window.heard.join() === '0 failed,1 failed,3 8' || (window.heard.length > 2 && Promise.reject(window.heard.join()))",
    );
}

//! What the README shows is what happens.
#![cfg(target_os = "linux")]

#[test]
fn the_code_blocks_of_the_readme_run() {
    let ran = gemmesh_tests::readme::run(&gemmesh_tests::root().join("README.md"));
    assert!(
        ran >= 3,
        "only {ran} blocks ran: are the others marked as illustrations?"
    );
}

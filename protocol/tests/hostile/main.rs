//! Peers that say anything at any time: an engine may drop them, and must not panic, spin or grow
//! without a bound.

mod cast;
mod replication;
mod run;
mod words;

use gemmesh_protocol::engine::Engine;
use gemmesh_protocol::page::PageEngine;
use gemmesh_protocol::status::DeviceKind;
use gemmesh_protocol::time::Instant;
use proptest::prelude::*;

use run::Run;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_peer_can_make_a_node_panic(seed in any::<u64>()) {
        let mut run = Run::new(seed);
        let config = run.config(0, DeviceKind::Native);
        let mut engine = Engine::new(config, Instant(run.now));
        run.drive(&mut |input, now, outputs| {
            engine.handle(input, now);
            while let Some(output) = engine.poll_output() {
                outputs.push(output);
            }
            let _ = engine.poll_timeout();
            let _ = (engine.jobs(now), engine.devices());
        });
    }

    #[test]
    fn no_node_can_make_a_page_panic(seed in any::<u64>()) {
        let mut run = Run::new(seed);
        let config = run.config(0, DeviceKind::Browser);
        let mut page = PageEngine::new(config, "n0:8080".to_owned(), Instant(run.now));
        run.drive(&mut |input, now, outputs| {
            page.handle(input, now);
            while let Some(output) = page.poll_output() {
                outputs.push(output);
            }
            let _ = page.poll_timeout();
            let _ = (page.jobs(), page.devices(), page.contribution());
        });
    }
}

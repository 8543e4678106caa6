//! Who computes and keeps tiles honestly is never put in quarantine, also when its last bits differ.

use gemmesh_protocol::io::Output;

use super::super::Sim;
use super::super::faults::Class;
use super::{Invariant, Step};

/// See the module.
#[derive(Debug)]
pub struct HonestAreNotBlamed;

impl Invariant for HonestAreNotBlamed {
    fn name(&self) -> &'static str {
        "the honest are not blamed"
    }

    fn check(&mut self, sim: &Sim, step: &Step<'_>) -> Result<(), String> {
        let Step::Output(host, Output::Quarantined { device, .. }) = step else {
            return Ok(());
        };
        // Rotten bytes that another node gives are not to be told from lies.
        let rot = sim.faults[Class::BadTile as usize].0 > 0;
        match sim.host_of(*device) {
            Some(other) if !sim.hosts[other].spec.liar && !rot => {
                Err(format!("n{host} puts n{other} in quarantine"))
            }
            _ => Ok(()),
        }
    }
}

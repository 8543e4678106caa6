//! A room: a coordinator and helpers of known speed around it, all through one shared link, and one product.
//! How long the shipped engines take for it and what they send, next to what is possible.

use gemmesh_protocol::io::WorkerMemory;
use gemmesh_protocol::prng::Prng;
use gemmesh_protocol::status::JobStatus;
use gemmesh_protocol::time::Span;

use super::{Sim, Spec};

/// The room and the product.
#[derive(Debug, Clone)]
pub struct Room {
    /// Operations a second of each device's one slot; the first is the coordinator.
    pub speeds: Vec<f64>,
    /// Bytes a second of the link that all share.
    pub link: f64,
    /// The edge of the square matrices.
    pub edge: u64,
    /// Bytes of blocks that each device keeps.
    pub cache: u64,
}

/// How it went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// From submission to the end.
    pub seconds: f64,
    /// Bytes that went through the link in that time.
    pub bytes: u64,
    /// The last status.
    pub status: JobStatus,
}

/// Bytes of an element.
const ELEMENT: f64 = 8.0;
/// Between two that join: people come one after the other.
const JOINING: Span = Span::from_millis(100);
/// A mesh of devices that are all there has formed within this.
const FORMING: Span = Span::from_secs(60);
/// No job of a room takes longer.
const END_MAX: Span = Span::from_secs(1_000_000);

impl Room {
    /// `devices` of speeds between `slowest` and `spread` times that, evenly on a logarithmic scale, in random
    /// order.
    pub fn random(
        devices: usize,
        slowest: f64,
        spread: f64,
        link: f64,
        edge: u64,
        seed: u64,
    ) -> Self {
        let mut prng = Prng::new(seed);
        let mut speeds: Vec<f64> = (0..devices)
            .map(|n| slowest * spread.powf(n as f64 / (devices - 1).max(1) as f64))
            .collect();
        for at in (1..devices).rev() {
            speeds.swap(at, prng.below(at as u64 + 1) as usize);
        }
        Self {
            speeds,
            link,
            edge,
            cache: 4 << 30,
        }
    }

    /// The least time in which any of the devices, the coordinator among them, can have the product: for the
    /// best set of helpers max(2n³/Σs, V/W), with shares by speed. Sets of fast helpers have the least V.
    pub fn bound(&self) -> f64 {
        let mut helpers = self.speeds[1..].to_vec();
        helpers.sort_by(|a, b| b.total_cmp(a));
        let n = self.edge as f64;
        let time = |count: usize| {
            let total = self.speeds[0] + helpers[..count].iter().sum::<f64>();
            let shares = helpers[..count].iter().map(|speed| speed / total);
            let floor = ELEMENT * n * n * shares.map(|x| 2.0 * x.sqrt() + x).sum::<f64>();
            (2.0 * n * n * n / total).max(floor / self.link)
        };
        (0..=helpers.len()).map(time).fold(f64::INFINITY, f64::min)
    }

    /// Runs the product. Everything follows from the seed.
    ///
    /// # Panics
    /// When it does not end.
    pub fn run(&self, seed: u64) -> Outcome {
        let mut sim = Sim::with_room(seed, self.speeds.len() + 1).unwatched();
        let rate = (self.link * 64.0 / 1e6).max(1.0) as u64;
        for (n, speed) in self.speeds.iter().enumerate() {
            sim.add_node(Spec {
                slots: 1,
                mflops: speed / 1e6,
                backups: 0,
                port: (n == 0).then_some(rate),
                memory: WorkerMemory::of_cache(self.cache),
                ..Spec::default()
            });
            if n > 0 {
                sim.path(0, n).rate = rate;
                sim.path(n, 0).rate = rate;
                sim.hint(n, 0, true);
                // One after the other, as people come.
                sim.run(JOINING, |_| false);
            }
        }
        for from in 0..self.speeds.len() {
            for to in 0..self.speeds.len() {
                sim.path(from, to).rate = rate;
            }
        }
        sim.run(FORMING, |_| false);
        let devices = sim.hosts[0].engine().devices().len();
        assert_eq!(devices, self.speeds.len(), "everybody is there");
        let before = sim.hosts[0].port_bytes;
        let job = sim.submit(0, self.edge, self.edge, self.edge);
        assert!(sim.run(END_MAX, |sim| sim.jobs[&job].ended.is_some()));
        let truth = &sim.jobs[&job];
        Outcome {
            seconds: truth.seconds,
            bytes: sim.hosts[0].port_bytes - before,
            status: truth.ended.clone().expect("it has ended"),
        }
    }
}

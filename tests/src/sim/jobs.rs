//! Jobs, and what people do with them.

use gemmesh_protocol::id::{BlockId, JobId};
use gemmesh_protocol::io::Input;
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::plan;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::tile::Tiling;

use super::disk::Write;
use super::truth::Truth;
use super::{Power, Sim};

/// The usual element type.
pub const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};
/// Exact integers of 64 bits.
pub const INT: ElementType = ElementType {
    dtype: Dtype::Int,
    limbs: 1,
};

impl Sim {
    /// Somebody submits a product of random matrices, cut as the program would.
    pub fn submit(&mut self, host: usize, m: u64, k: u64, n: u64) -> JobId {
        self.submit_as(host, KernelClass::Any, [m, k, n], None)
    }

    /// The same, of a class, and cut into tiles of `edge` elements if given.
    pub fn submit_as(
        &mut self,
        host: usize,
        class: KernelClass,
        [m, k, n]: [u64; 3],
        edge: Option<u64>,
    ) -> JobId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.prng.next_u64().to_le_bytes());
        let job = JobId(id);
        let element = match class {
            KernelClass::Exact => INT,
            _ => F64,
        };
        // Every fourth of the jobs that are cut small is a stack of products.
        let stack = match edge {
            Some(_) if id[0] % 4 == 0 => 2 + u64::from(id[1] % 8),
            _ => 1,
        };
        let m = m.next_multiple_of(stack);
        let a = manifest_of(&format!("{job} A"), m, k, element);
        let b = manifest_of(&format!("{job} B"), stack * k, n, element);
        let slots = self.hosts.iter().map(|host| host.spec.slots).sum();
        let tiling = match edge {
            None => plan::tiling(&a, &b, element, slots),
            Some(edge) => Tiling {
                rows: m,
                cols: n,
                tile_rows: edge,
                tile_cols: edge,
            },
        };
        let header = JobHeader {
            job,
            name: "simulated".to_owned(),
            class,
            tiling,
            a,
            b,
            element,
            stack: stack as u32,
            batch: None,
            guard: None,
            share: None,
        };
        let taken = Taken {
            header: header.clone(),
            submitted: self.hosts[host].clock.wall(self.now),
            token: BlockId([7; 32]),
        };
        let name = format!("job {}", self.jobs.len());
        self.jobs
            .insert(job, Truth::new(name, header, host, self.now));
        self.write(host, Write::Take(Box::new(taken)));
        job
    }

    /// Somebody cancels a job at the node that coordinates it; says whether there was one.
    pub fn cancel(&mut self, job: JobId) -> bool {
        let coordinator = self.coordinators(job).next();
        if let Some(host) = coordinator {
            self.jobs.get_mut(&job).expect("a job").cancelled = true;
            let name = self.job_name(job);
            self.tell(format!("{name} is cancelled at n{host}"));
            self.input(host, Input::Cancel { job });
        }
        coordinator.is_some()
    }

    /// Nodes that run and coordinate a job that has not ended there.
    pub fn coordinators(&self, job: JobId) -> impl Iterator<Item = usize> {
        let hosts = self.hosts.iter().enumerate();
        let runs = move |(at, host): (usize, &super::Host)| {
            let on = host.power == Power::On && host.is_node();
            (on && host.engine().header(job).is_some()).then_some(at)
        };
        hosts.filter_map(runs)
    }

    /// How the story calls a job.
    pub fn job_name(&self, job: JobId) -> String {
        let known = self.jobs.get(&job);
        known.map_or_else(|| job.short(), |truth| truth.name.clone())
    }

    /// Every job that was acknowledged has ended, or (without replication) its node is gone.
    pub fn all_ended(&self) -> bool {
        self.jobs.iter().all(|(job, truth)| {
            let host = &self.hosts[truth.host];
            let gone = !super::REPLICATION && !host.is_on();
            let taken = |write: &Write| matches!(write, Write::Take(_)) && write.job() == *job;
            // Either on its way to the disk, or lost before anybody was told.
            let refused = truth.acknowledged.is_none() && !host.disk.pending().any(taken);
            truth.ended.is_some() || refused || gone
        })
    }
}

/// A matrix of random floats.
pub fn manifest(name: &str, rows: u64, cols: u64) -> Manifest {
    manifest_of(name, rows, cols, F64)
}

fn manifest_of(name: &str, rows: u64, cols: u64, element: ElementType) -> Manifest {
    let count = Grid::new(rows, cols, element).len();
    let block = |n| BlockId::of(format!("{name} {n}").as_bytes());
    Manifest {
        element,
        bits: if element.dtype == Dtype::Int { 20 } else { 0 },
        rows,
        cols,
        blocks: (0..count).map(block).collect(),
    }
}

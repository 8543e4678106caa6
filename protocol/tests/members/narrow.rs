//! Members with little memory: they are left out of jobs whose tiles they have no room for, and the job says so.

use gemmesh_protocol::forecast::Limit;
use gemmesh_protocol::id::{BlockId, DeviceId, JobId};
use gemmesh_protocol::io::{Door, Input, Output};
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::Message;
use gemmesh_protocol::plan;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::Planned;
use gemmesh_protocol::time::WallTime;

use crate::node::*;

const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};
const EDGE: u64 = 4_000;

#[test]
fn who_has_room_for_the_tiles_is_told_of_the_job() {
    let (opened, limit) = told(TileLimits::default());
    assert!(opened);
    assert_ne!(limit, Some(Limit::Memory));
}

#[test]
fn who_has_no_room_for_a_tile_is_left_out_and_the_job_says_why() {
    let limits = TileLimits {
        tile_bytes: header().tile_bytes(0) - 1,
        ..TileLimits::default()
    };
    assert_eq!(told(limits), (false, Some(Limit::Memory)));
}

#[test]
fn who_has_no_room_for_the_blocks_of_a_slab_is_left_out_too() {
    let limits = TileLimits {
        slab_bytes: 1 << 20,
        resident_bytes: 2 << 20,
        ..TileLimits::default()
    };
    assert_eq!(told(limits), (false, Some(Limit::Memory)));
    let limits = TileLimits {
        resident_bytes: 64 << 20,
        ..limits
    };
    assert!(told(limits).0);
}

/// Whether a member with such limits is told of a job, and what limits it as the plan says before and after
/// the job starts.
fn told(limits: TileLimits) -> (bool, Option<Limit>) {
    let mut node = Node::new(ME);
    node.link_up(1, Door::Mesh);
    let mut record = record(HONEST, NODE);
    record.limits = limits;
    node.frame(1, HONEST, Message::Hello(hello(record, false)));
    let to = DeviceId([HONEST; 32]);
    let limit = |plan: &[Planned]| plan.iter().find(|p| p.device == to).map(|p| p.limit);
    let outlook = limit(&node.engine.outlook(&header()).plan);
    let taken = Box::new(Taken {
        header: header(),
        submitted: WallTime(0),
        token: BlockId([0; 32]),
    });
    let outputs = node.input(Input::Submit { taken });
    let opened = outputs.iter().any(|output| match output {
        Output::Send { header, .. } => {
            header.to == to && matches!(header.body, Message::Open { .. })
        }
        _ => false,
    });
    let status = node.engine.job_status(header().job, node.now);
    let status = status.map(|status| limit(&status.plan));
    assert_eq!(status, Some(outlook), "the job says what was said before");
    (opened, outlook)
}

fn header() -> JobHeader {
    let manifest = || Manifest {
        element: F64,
        bits: 0,
        rows: EDGE,
        cols: EDGE,
        blocks: (0..Grid::new(EDGE, EDGE, F64).len())
            .map(|n| BlockId::of(&n.to_be_bytes()))
            .collect(),
    };
    let (a, b) = (manifest(), manifest());
    JobHeader {
        job: JobId([7; 16]),
        name: String::new(),
        class: KernelClass::Any,
        tiling: plan::tiling(&a, &b, F64, 2),
        a,
        b,
        element: F64,
        stack: 1,
        batch: None,
        guard: None,
        share: None,
    }
}

//! Who plays, and with what.

use gemmesh_protocol::id::{BlockId, DeviceId};
use gemmesh_protocol::job::KernelClass;
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::DeviceRecord;
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::time::WallTime;

/// Devices in play; the first is the engine itself.
pub const DEVICES: usize = 5;

pub fn id(device: usize) -> DeviceId {
    DeviceId([device as u8 + 1; 32])
}

/// Devices 3 and 4 are pages.
pub fn record(device: usize) -> DeviceRecord {
    let page = device >= 3;
    DeviceRecord {
        device: id(device),
        incarnation: 1,
        version: 1,
        name: format!("n{device}"),
        kind: if page {
            DeviceKind::Browser
        } else {
            DeviceKind::Native
        },
        addresses: if page {
            Vec::new()
        } else {
            vec![format!("n{device}:8080")]
        },
        via: None,
        slots: 2,
        classes: vec![KernelClass::Any],
        mflops: 1_000.0,
        state: DeviceState::Ready,
        since: WallTime(0),
        user_agent: String::new(),
        stacks: true,
        residues: true,
        limits: TileLimits::default(),
    }
}

/// Stands for bytes: how many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Payload {
    pub len: u64,
}

pub fn payload(len: u64) -> Payload {
    Payload { len }
}

pub const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};

pub fn manifest(name: &str, rows: u64, cols: u64) -> Manifest {
    let count = Grid::new(rows, cols, F64).len();
    let block = |n| BlockId::of(format!("{name} {n}").as_bytes());
    Manifest {
        element: F64,
        bits: 0,
        rows,
        cols,
        blocks: (0..count).map(block).collect(),
    }
}

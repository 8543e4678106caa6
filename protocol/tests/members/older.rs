//! Members of a version that does not know stacks: they are left out of jobs that are stacks.

use gemmesh_protocol::id::{BlockId, DeviceId, JobId};
use gemmesh_protocol::io::{Door, Input, Output};
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::Message;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::stack;
use gemmesh_protocol::time::{Span, WallTime};

use crate::node::*;

const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};

#[test]
fn a_stack_is_told_to_devices_that_know_stacks() {
    let told = told(true);
    assert!(told.opened && told.appended);
}

#[test]
fn an_older_device_is_neither_given_tiles_of_a_stack_nor_its_log() {
    let told = told(false);
    assert!(!told.opened && !told.appended);
}

struct Told {
    opened: bool,
    appended: bool,
}

/// What a member hears of a stack in its first ten seconds.
fn told(stacks: bool) -> Told {
    let mut node = Node::new(ME);
    node.link_up(1, Door::Mesh);
    let mut record = record(HONEST, NODE);
    record.stacks = stacks;
    node.frame(1, HONEST, Message::Hello(hello(record, false)));
    let taken = Box::new(Taken {
        header: header(500, 40, 30),
        submitted: WallTime(0),
        token: BlockId([0; 32]),
    });
    let mut outputs = node.input(Input::Submit { taken });
    for _ in 0..50 {
        node.now = node.now + Span::from_millis(200);
        outputs.extend(node.frame(1, HONEST, Message::Pong { nonce: 0 }));
        outputs.extend(node.input(Input::Tick));
    }
    let to = DeviceId([HONEST; 32]);
    let said = |which: fn(&Message) -> bool| {
        outputs.iter().any(|output| match output {
            Output::Send { header, .. } => header.to == to && which(&header.body),
            _ => false,
        })
    };
    Told {
        opened: said(|body| matches!(body, Message::Open { .. })),
        appended: said(|body| matches!(body, Message::Append { .. })),
    }
}

/// Of so many products of matrices of `edge`; large enough to be worth a round trip.
fn header(edge: u64, products: u32, slots: u32) -> JobHeader {
    let manifest = || {
        let (rows, cols) = (edge * u64::from(products), edge);
        let blocks = Grid::new(rows, cols, F64).len();
        Manifest {
            element: F64,
            bits: 0,
            rows,
            cols,
            blocks: (0..blocks).map(|n| BlockId::of(&n.to_be_bytes())).collect(),
        }
    };
    let (a, b) = (manifest(), manifest());
    JobHeader {
        job: JobId([7; 16]),
        name: String::new(),
        class: KernelClass::Any,
        tiling: stack::form(&a, &b, F64, products).tiling(products, slots),
        a,
        b,
        element: F64,
        stack: products,
        batch: None,
        guard: None,
        share: None,
    }
}

//! A page's session against a node that is played by the test: handshake, one tile, blocks checked
//! before they are used, payloads given back. Runs on the host and in headless Chromium.

use gemmesh_protocol::codec;
use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
use gemmesh_protocol::job::{JobHeader, KernelClass, Operand};
use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::message::{DeviceRecord, Grant, Header, Hello, Message, VERSION};
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::tile::Tiling;
use gemmesh_protocol::time::{Instant, Span, WallTime};
use gemmesh_wasm_worker::session::{Action, Session, Slab, Start};
use gemmesh_wasm_worker::task::{Task, placement};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::{wasm_bindgen_test as test, wasm_bindgen_test_configure};

#[cfg(target_arch = "wasm32")]
wasm_bindgen_test_configure!(run_in_browser);

const NODE: DeviceId = DeviceId([7; 32]);
const ADDRESS: &str = "192.0.2.1:8080";
const LINK: u64 = 1;
const JOB: JobId = JobId([5; 16]);
const F64: ElementType = ElementType {
    dtype: Dtype::F64,
    limbs: 1,
};

#[test]
fn a_page_introduces_itself_as_a_member_with_what_it_can_do() {
    let mut page = Page::new();
    let dialled = page.session.actions();
    assert!(
        matches!(&dialled[..], [Action::Dial { address }] if address == ADDRESS),
        "{dialled:?}"
    );
    page.session.link_up(LINK, ADDRESS.to_owned(), page.now);
    let [Message::Hello(hello)] = &page.said()[..] else {
        panic!("not one Hello");
    };
    assert!(hello.attach);
    assert_eq!(hello.mesh, "room");
    let record = &hello.record;
    assert_eq!(record.device, page.session.device());
    assert_eq!((record.kind, record.slots), (DeviceKind::Browser, 2));
    assert!(record.classes.contains(&KernelClass::Separate));
    assert!(!record.classes.contains(&KernelClass::Fused));
}

#[test]
fn a_tile_is_computed_from_checked_blocks_and_sent_as_one_frame() {
    let mut page = Page::connected();
    let (header, a, b) = job();
    page.open();
    let pulled = page.said();
    assert!(
        matches!(
            &pulled[..],
            [Message::Pull {
                job: JOB,
                header: true,
                ..
            }]
        ),
        "{pulled:?}"
    );
    page.hear(Message::Job(Box::new(header)), &[]);
    page.hear(grants(), &[]);
    let wanted = page.fetches();
    assert_eq!(wanted, [(Operand::A, 0), (Operand::B, 0)]);

    // A block with another content is never kept, and is asked for again.
    let mut broken = a.clone();
    broken[3] ^= 1;
    page.hear(block(Operand::A), &broken);
    assert!(
        !page
            .actions
            .iter()
            .any(|action| matches!(action, Action::Keep { .. }))
    );
    assert_eq!(page.fetches(), [(Operand::A, 0)]);

    page.hear(block(Operand::A), &a);
    page.hear(block(Operand::B), &b);
    let kept: Vec<&String> = page
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Keep { block, .. } => Some(block),
            _ => None,
        })
        .collect();
    assert_eq!(
        kept,
        [&BlockId::of(&a).to_string(), &BlockId::of(&b).to_string()]
    );
    let slab = page.slab();
    assert!(slab.first && slab.last);
    assert_eq!(
        (slab.job.as_str(), slab.tile),
        (JOB.to_string().as_str(), 0)
    );
    page.actions.clear();

    let c = compute(&slab, &a, &b);
    let number = page
        .session
        .slab_done(slab.slot, Span::from_millis(3), Some(c.len()), page.now)
        .expect("the last slab has a result");
    page.drain();
    let sent = page.actions.iter().find_map(|action| match action {
        Action::Send {
            header,
            payload: Some(payload),
            ..
        } => Some((header.clone(), *payload)),
        _ => None,
    });
    let (frame_header, payload) = sent.expect("a frame with the result");
    assert_eq!(payload, number);
    let frame = [&frame_header[..], &c[..]].concat();
    let (header, offset) = codec::decode(&frame).expect("a frame of this protocol");
    assert_eq!(&frame[offset..], &c[..]);
    assert!(
        matches!(header.body, Message::Result { job: JOB, lease: LeaseId(11), tile: 0, work, .. } if work.kernel == Span::from_millis(3))
    );
    // 1·5 + 2·7, 1·6 + 2·8, 3·5 + 4·7, 3·6 + 4·8
    let values: Vec<f64> = c
        .chunks_exact(8)
        .map(|x| f64::from_le_bytes(x.try_into().expect("eight bytes")))
        .collect();
    assert_eq!(values, [19.0, 22.0, 43.0, 50.0]);
    // It counts when the coordinator says so.
    assert_eq!(page.session.contribution().tiles, 0);
    page.hear(
        Message::Verdict {
            job: JOB,
            lease: LeaseId(11),
            tile: 0,
            valid: true,
            accepted: true,
        },
        &[],
    );
    let contribution = page.session.contribution();
    assert_eq!(
        (
            contribution.tiles,
            contribution.rows,
            contribution.operations
        ),
        (1, 2, 16)
    );
    // Sent, so nothing needs the result any more.
    assert!(
        page.actions
            .iter()
            .any(|action| matches!(action, Action::Release { payload } if *payload == number))
    );
}

#[test]
fn every_payload_is_given_back() {
    let mut page = Page::connected();
    let (header, a, b) = job();
    page.open();
    page.hear(Message::Job(Box::new(header)), &[]);
    page.hear(grants(), &[]);
    page.hear(block(Operand::A), &a);
    page.hear(block(Operand::B), &b);
    // Nobody asked for this one.
    page.hear(block(Operand::B), &a);
    page.hear(Message::Closed { job: JOB }, &[]);
    let payloads = |wanted: fn(&Action) -> Option<u32>| {
        let mut numbers: Vec<u32> = page.actions.iter().filter_map(wanted).collect();
        numbers.sort_unstable();
        numbers
    };
    let given = payloads(|action| match action {
        Action::Payload { payload, .. } => Some(*payload),
        _ => None,
    });
    let released = payloads(|action| match action {
        Action::Release { payload } => Some(*payload),
        _ => None,
    });
    assert_eq!(given.len(), 3);
    assert_eq!(given, released);
}

#[test]
fn what_is_no_frame_is_an_error() {
    let mut page = Page::connected();
    for bytes in [&[][..], &[0x92], &[0xff; 100]] {
        assert!(page.session.frame(LINK, bytes, page.now).is_err());
    }
}

#[test]
fn a_paused_page_pulls_nothing() {
    let mut page = Page::connected();
    page.session.configure(None, None, Some(true), page.now);
    page.drain();
    page.actions.clear();
    page.open();
    let said = page.said();
    assert!(
        !said
            .iter()
            .any(|message| matches!(message, Message::Pull { .. })),
        "{said:?}"
    );
    assert!(page.session.contribution().paused);
}

/// A session and what it wanted done since the test last looked.
struct Page {
    session: Session,
    now: Instant,
    actions: Vec<Action>,
}

impl Page {
    fn new() -> Self {
        let start = Start {
            node: ADDRESS.to_owned(),
            others: Vec::new(),
            mesh: "room".to_owned(),
            time: 1_800_000_000_000,
            name: "a phone".to_owned(),
            slots: 2,
            mflops: 1_000.0,
            fuses: false,
            user_agent: "test".to_owned(),
            cache_bytes: 64 << 20,
            paused: false,
        };
        let now = Instant(1_000_000);
        Self {
            session: Session::new(&[9; 32], start, now),
            now,
            actions: Vec::new(),
        }
    }

    /// A member of the mesh.
    fn connected() -> Self {
        let mut page = Self::new();
        page.session.link_up(LINK, ADDRESS.to_owned(), page.now);
        page.drain();
        let welcome = Hello {
            version: VERSION,
            mesh: "room".to_owned(),
            record: node(),
            attach: false,
        };
        page.hear(Message::Welcome(welcome), &[]);
        page.actions.clear();
        assert_eq!(page.session.contribution().node, Some(NODE));
        page
    }

    fn open(&mut self) {
        let open = Message::Open {
            job: JOB,
            epoch: epoch(),
            class: KernelClass::Any,
            addresses: vec![ADDRESS.to_owned()],
        };
        self.hear(open, &[]);
    }

    /// A frame from the node.
    fn hear(&mut self, body: Message, payload: &[u8]) {
        let header = Header {
            from: NODE,
            to: self.session.device(),
            body,
        };
        let frame = codec::encode(&header, payload);
        self.now = self.now + Span::from_millis(1);
        self.session
            .frame(LINK, &frame, self.now)
            .expect("a frame of this protocol");
        self.drain();
    }

    fn drain(&mut self) {
        self.actions.extend(self.session.actions());
    }

    /// What the page sent since the last look; other actions are forgotten.
    fn said(&mut self) -> Vec<Message> {
        self.drain();
        let sent = |action| match action {
            Action::Send {
                header,
                payload: None,
                ..
            } => Some(codec::decode(&header).expect("its own frame").0.body),
            _ => None,
        };
        std::mem::take(&mut self.actions)
            .into_iter()
            .filter_map(sent)
            .collect()
    }

    /// The blocks that the page asked for since the last look.
    fn fetches(&mut self) -> Vec<(Operand, u32)> {
        self.said()
            .into_iter()
            .filter_map(|message| match message {
                Message::Fetch {
                    operand, blocks, ..
                } => Some(blocks.into_iter().map(move |block| (operand, block))),
                _ => None,
            })
            .flatten()
            .collect()
    }

    fn slab(&self) -> Slab {
        let slab = self.actions.iter().find_map(|action| match action {
            Action::Compute(slab) => Some((**slab).clone()),
            _ => None,
        });
        slab.expect("something to compute")
    }
}

/// What a compute worker does with a slab.
fn compute(slab: &Slab, a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut task = Task::default();
    task.begin(&slab.spec).expect("a small tile");
    task.begin_slab(slab.depth as usize).expect("its slab");
    for part in &slab.a {
        task.put_a(a, placement(&part.part)).expect("a part of A");
    }
    for part in &slab.b {
        task.put_b(b, placement(&part.part)).expect("a part of B");
    }
    task.accumulate().expect("a full slab");
    task.finish().expect("a full tile")
}

/// 2 × 2 by 2 × 2, with the bytes of the factors' only blocks.
fn job() -> (JobHeader, Vec<u8>, Vec<u8>) {
    let bytes = |values: [f64; 4]| values.map(f64::to_le_bytes).concat();
    let (a, b) = (bytes([1.0, 2.0, 3.0, 4.0]), bytes([5.0, 6.0, 7.0, 8.0]));
    let manifest = |block: &[u8]| Manifest {
        element: F64,
        bits: 0,
        rows: 2,
        cols: 2,
        blocks: vec![BlockId::of(block)],
    };
    let header = JobHeader {
        job: JOB,
        name: String::new(),
        class: KernelClass::Any,
        a: manifest(&a),
        b: manifest(&b),
        element: F64,
        tiling: Tiling {
            rows: 2,
            cols: 2,
            tile_rows: 2,
            tile_cols: 2,
        },
        stack: 1,
        batch: None,
        guard: None,
        share: None,
    };
    (header, a, b)
}

fn grants() -> Message {
    Message::Grants {
        job: JOB,
        epoch: epoch(),
        grants: vec![Grant {
            lease: LeaseId(11),
            tile: 0,
            lasts: Span::from_secs(30),
        }],
    }
}

fn block(operand: Operand) -> Message {
    Message::Block {
        job: JOB,
        operand,
        block: 0,
    }
}

fn epoch() -> Epoch {
    Epoch {
        counter: 1,
        device: NODE,
    }
}

fn node() -> DeviceRecord {
    DeviceRecord {
        device: NODE,
        incarnation: 1,
        version: 1,
        name: "node".to_owned(),
        kind: DeviceKind::Native,
        addresses: vec![ADDRESS.to_owned()],
        via: None,
        slots: 1,
        classes: vec![KernelClass::Any],
        mflops: 1.0,
        state: DeviceState::Ready,
        since: WallTime(0),
        user_agent: String::new(),
        stacks: true,
        residues: true,
        limits: TileLimits::default(),
    }
}

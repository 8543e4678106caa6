//! A page whose node goes away: where it goes, in which order, what goes on meanwhile, and how it
//! comes back. The test plays the nodes.

use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, LeaseId};
use gemmesh_protocol::io::{Config, Door, Input, LinkId, Output, SlabTask, WorkerMemory};
use gemmesh_protocol::job::{JobHeader, KernelClass, Operand};
use gemmesh_protocol::matrix::{Dtype, ElementType, Manifest};
use gemmesh_protocol::message::{DeviceRecord, Grant, Header, Hello, Message, Refusal, VERSION};
use gemmesh_protocol::page::{Connection, PageEngine};
use gemmesh_protocol::plan;
use gemmesh_protocol::slab::TileLimits;
use gemmesh_protocol::status::{DeviceKind, DeviceState};
use gemmesh_protocol::time::{Instant, Span, WallTime};

const ME: u8 = 200;
const HOME: u8 = 1;
const JOB: JobId = JobId([7; 16]);
/// Longer than any pause of a page.
const LONG: Span = Span::from_secs(60);

#[test]
fn a_page_dials_its_node_again_and_then_moves_to_another() {
    let mut page = Page::member(&[2]);
    page.cut(HOME);
    assert_eq!(
        page.wait_for_dial(),
        address(HOME),
        "it may be back at once"
    );
    page.refuse_dial();
    assert_eq!(page.dialled(), [address(2)], "no pause in between");
    page.join(2);
    let contribution = page.engine.contribution();
    assert_eq!(contribution.connection, Connection::Connected);
    assert_eq!(contribution.node, Some(device(2)));
    assert!(contribution.moved);
}

#[test]
fn a_page_that_hears_nothing_any_more_goes_too() {
    let mut page = Page::member(&[2]);
    // It asks and nobody answers.
    page.wait_until("to dial", |page| !page.dials.is_empty());
    assert_eq!(page.dialled(), [address(HOME)]);
    // The dial is never answered either.
    page.wait_until("to dial another", |page| !page.dials.is_empty());
    assert_eq!(page.dialled(), [address(2)]);
    page.join(2);
    assert!(page.engine.contribution().moved);
}

#[test]
fn the_likeliest_node_comes_first() {
    let mut page = Page::member(&[2, 3, 4, 5]);
    // One is gone, as the mesh says; one has pages already; to one there is a link.
    let mut gone = node(2);
    (gone.version, gone.state) = (2, DeviceState::Lost);
    let mut attached = node(100);
    attached.kind = DeviceKind::Browser;
    attached.addresses.clear();
    attached.via = Some(device(3));
    page.hear(
        HOME,
        Message::Gossip {
            devices: vec![gone, attached],
        },
    );
    page.open_directly(5);
    page.cut(HOME);
    assert_eq!(page.wait_for_dial(), address(HOME));
    let mut order = Vec::new();
    for _ in 0..4 {
        page.refuse_dial();
        order.extend(page.dialled());
    }
    assert_eq!(order, [5, 4, 3, 2].map(address));
}

#[test]
fn pages_that_lose_the_same_node_spread_over_the_others() {
    let all: Vec<u8> = (2..10).collect();
    let mut first = std::collections::BTreeSet::new();
    for id in 100..140 {
        let mut page = Page::new(id);
        page.become_member(&all);
        page.cut(HOME);
        page.wait_for_dial();
        page.refuse_dial();
        first.extend(page.dialled());
    }
    assert!(first.len() >= 4, "{first:?}");
}

#[test]
fn without_any_node_all_are_tried_again_with_longer_pauses() {
    let mut page = Page::member(&[2, 3]);
    page.cut(HOME);
    let mut pauses = Vec::new();
    for round in 0..12 {
        let begin = page.now;
        assert_eq!(page.wait_for_dial(), address(HOME), "round {round}");
        pauses.push(page.now - begin);
        let mut others = Vec::new();
        for _ in 0..2 {
            page.refuse_dial();
            others.extend(page.dialled());
        }
        others.sort();
        assert_eq!(others, [2, 3].map(address), "round {round}");
        page.refuse_dial();
        assert_eq!(page.dialled(), [""; 0], "round {round}");
        let contribution = page.engine.contribution();
        assert_eq!(contribution.connection, Connection::Connecting);
        assert!(!contribution.moved);
        assert!(page.engine.retry().is_some_and(|at| at > page.now));
    }
    assert!(pauses[0] <= Span::from_millis(100), "{pauses:?}");
    assert!(pauses[11] >= Span::from_secs(5), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= Span::from_secs(10)));
    // The last of them answers.
    assert_eq!(page.wait_for_dial(), address(HOME));
    page.refuse_dial();
    let next = page.dialled();
    let next = if next == [address(2)] { 2 } else { 3 };
    page.join(next);
    assert!(page.engine.contribution().moved);
}

#[test]
fn a_page_goes_back_to_the_node_that_served_it() {
    let mut page = Page::member(&[2]);
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    page.join(2);
    page.dials.clear();
    // It looks, in vain first; the work at the other node is not touched by that.
    for _ in 0..3 {
        assert_eq!(page.wait_alive_for_dial(2), address(HOME));
        page.refuse_dial();
        assert_eq!(page.engine.contribution().node, Some(device(2)));
        assert_eq!(page.dialled(), [""; 0]);
    }
    assert_eq!(page.wait_alive_for_dial(2), address(HOME));
    let before = page.link_of(2);
    page.join(HOME);
    let contribution = page.engine.contribution();
    assert_eq!(contribution.node, Some(device(HOME)));
    assert!(!contribution.moved);
    assert!(page.said(before, |body| matches!(body, Message::Bye)));
    assert!(page.closed.contains(&before));
    // And that was that.
    page.dials.clear();
    for _ in 0..60 {
        page.pass(Span::from_secs(2));
        page.hear(HOME, Message::Pong { nonce: 0 });
    }
    assert_eq!(page.dialled(), [""; 0]);
}

#[test]
fn when_the_second_node_dies_too_it_goes_on() {
    let mut page = Page::member(&[2, 3]);
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    let second = if page.dialled() == [address(2)] { 2 } else { 3 };
    let third = 5 - second;
    page.join(second);
    page.cut(second);
    assert_eq!(page.wait_for_dial(), address(second));
    page.refuse_dial();
    assert_eq!(page.dialled(), [address(HOME)]);
    page.refuse_dial();
    assert_eq!(page.dialled(), [address(third)]);
    page.join(third);
    assert_eq!(page.engine.contribution().node, Some(device(third)));
}

#[test]
fn what_has_a_link_of_its_own_is_not_disturbed() {
    let mut page = Page::member(&[2, 3]);
    let direct = page.open_directly(2);
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    assert_eq!(page.dialled(), [address(2)], "the one with the link");
    page.refuse_dial();
    assert_eq!(page.dialled(), [address(3)]);
    page.join(3);
    assert!(!page.closed.contains(&direct));
    // It still pulls there.
    page.sent.clear();
    page.hear(2, open(2));
    page.hear(2, Message::Closed { job: JOB });
    page.hear(2, open(2));
    assert!(page.said(direct, |body| matches!(body, Message::Pull { .. })));
}

#[test]
fn a_coordinator_that_becomes_the_own_node_has_one_link_and_opens_anew() {
    let mut page = Page::member(&[2]);
    let direct = page.open_directly(2);
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    page.join(2);
    assert!(page.closed.contains(&direct));
    page.sent.clear();
    page.hear(2, open(2));
    let own = page.link_of(2);
    assert!(page.said(own, |body| matches!(body, Message::Pull { .. })));
}

#[test]
fn work_of_a_coordinator_behind_the_own_node_comes_by_the_new_one() {
    let mut page = Page::member(&[2, 3]);
    // It can not be reached directly, so its node relays.
    let own = page.link_of(HOME);
    page.hear_from(own, 3, open(3));
    page.refuse_dial();
    assert!(page.said(own, |body| matches!(body, Message::Pull { .. })));
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    let next = page.dialled();
    let next = if next == [address(2)] { 2 } else { 3 };
    if next == 3 {
        page.refuse_dial();
        assert_eq!(page.dialled(), [address(2)]);
    }
    page.join(2);
    page.sent.clear();
    let own = page.link_of(2);
    page.hear_from(own, 3, open(3));
    page.refuse_dial();
    assert!(page.said(own, |body| matches!(body, Message::Pull { .. })));
}

#[test]
fn who_is_refused_by_its_own_node_does_not_go_elsewhere() {
    for reason in [Refusal::DuplicateId, Refusal::Mesh, Refusal::Version] {
        let mut page = Page::member(&[2]);
        page.cut(HOME);
        page.wait_for_dial();
        page.refuse(HOME, reason);
        assert_eq!(page.dialled(), [""; 0], "{reason:?}");
        let contribution = page.engine.contribution();
        assert_eq!(contribution.connection, Connection::Refused);
        assert_eq!(contribution.refusal, Some(reason));
    }
}

#[test]
fn what_another_node_refuses_is_tried_at_the_next() {
    let mut page = Page::member(&[2, 3]);
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    let second = if page.dialled() == [address(2)] { 2 } else { 3 };
    page.refuse(second, Refusal::Full);
    let third = 5 - second;
    assert_eq!(page.dialled(), [address(third)]);
    page.join(third);
    assert_eq!(page.engine.contribution().refusal, None);
}

#[test]
fn a_page_that_slept_finds_the_nodes_of_its_earlier_life() {
    let mut before = Page::member(&[2, 3]);
    before.pass(Span::from_secs(1));
    let known: Vec<String> = before.engine.nodes().map(str::to_owned).collect();
    let mut page = Page::new(ME);
    for address in &known {
        page.input(Input::Hint {
            address: address.clone(),
            device: None,
            keep: false,
        });
    }
    assert_eq!(page.dialled(), [address(HOME)]);
    page.refuse_dial();
    assert_eq!(
        page.dialled(),
        [""; 0],
        "the hints came after the first try"
    );
    assert_eq!(page.wait_for_dial(), address(HOME));
    page.refuse_dial();
    let next = page.dialled();
    let next = if next == [address(2)] { 2 } else { 3 };
    page.join(next);
    assert!(page.engine.contribution().moved);
}

#[test]
fn a_mesh_that_makes_up_nodes_takes_little_memory_and_no_more_than_a_few_dials() {
    let mut page = Page::member(&[]);
    for n in 0..2_000_u32 {
        let mut record = node(2);
        record.device.0[4..8].copy_from_slice(&n.to_le_bytes());
        record.addresses = (0..32).map(|i| format!("10.1.{i}.{n}:80")).collect();
        page.hear(
            HOME,
            Message::Gossip {
                devices: vec![record],
            },
        );
    }
    assert!(page.engine.nodes().count() <= 256);
    page.cut(HOME);
    page.wait_for_dial();
    let mut dials = 0;
    loop {
        page.refuse_dial();
        if page.dialled().is_empty() {
            break;
        }
        dials += 1;
    }
    assert_eq!(dials, 8);
}

#[test]
fn what_is_computed_goes_on_and_comes_to_who_takes_over() {
    let mut page = Page::member(&[2]);
    let own = page.link_of(HOME);
    let task = page.start_tile(0);
    page.cut(HOME);
    page.wait_for_dial();
    page.refuse_dial();
    page.join(2);
    assert_eq!(page.aborted, [0_u32; 0]);
    // The coordinator is gone; the page's new node takes over.
    page.sent.clear();
    page.hear(2, open_at(2, 2));
    let new = page.link_of(2);
    let resumes = |body: &Message| {
        matches!(body, Message::Resume { epoch, grants, .. }
            if epoch.counter == 2 && grants == &[task.grant])
    };
    assert!(page.said(new, resumes), "{:?}", page.sent);
    page.finish(&task);
    let result = |body: &Message| {
        matches!(body, Message::Result { epoch, tile, lease, .. }
            if epoch.counter == 2 && (*tile, *lease) == (task.grant.tile, task.grant.lease))
    };
    assert!(page.said(new, result));
    assert!(!page.said(own, |body| matches!(body, Message::Result { .. })));
}

#[test]
fn a_result_that_nobody_took_comes_to_who_takes_over() {
    // Computed while there was no node at all, or sent to the one that died before it answered.
    for early in [false, true] {
        let mut page = Page::member(&[2]);
        let task = page.start_tile(0);
        if early {
            page.finish(&task);
        }
        page.cut(HOME);
        if !early {
            page.finish(&task);
        }
        page.wait_for_dial();
        page.refuse_dial();
        page.join(2);
        page.sent.clear();
        page.hear(2, open_at(2, 2));
        let new = page.link_of(2);
        let result =
            |body: &Message| matches!(body, Message::Result { epoch, .. } if epoch.counter == 2);
        assert!(page.said(new, result), "{early}: {:?}", page.sent);
    }
}

struct Page {
    engine: PageEngine<()>,
    now: Instant,
    links: u64,
    /// Dialled and not looked at yet.
    dials: Vec<String>,
    /// The last address dialled.
    last_dial: String,
    open: Vec<(u8, LinkId)>,
    sent: Vec<(LinkId, Message)>,
    closed: Vec<LinkId>,
    tasks: Vec<SlabTask>,
    aborted: Vec<u32>,
}

impl Page {
    fn new(id: u8) -> Self {
        let mut record = node(id);
        record.kind = DeviceKind::Browser;
        record.addresses.clear();
        let config = Config {
            record,
            mesh: "room".to_owned(),
            seed: u64::from(id),
            memory: WorkerMemory::of_cache(64 << 20),
            devices_max: 64,
            backups: 0,
        };
        let now = Instant(1_000_000);
        let mut page = Self {
            engine: PageEngine::new(config, address(HOME), now),
            now,
            links: 0,
            dials: Vec::new(),
            last_dial: String::new(),
            open: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            tasks: Vec::new(),
            aborted: Vec::new(),
        };
        page.drain();
        page
    }

    /// A page attached to the node that served it, with further nodes in the mesh.
    fn member(others: &[u8]) -> Self {
        let mut page = Self::new(ME);
        page.become_member(others);
        page
    }

    fn become_member(&mut self, others: &[u8]) {
        assert_eq!(self.dialled(), [address(HOME)]);
        self.join(HOME);
        let devices = others.iter().map(|n| node(*n)).collect();
        self.hear(HOME, Message::Gossip { devices });
        assert!(!self.engine.contribution().moved);
    }

    fn input(&mut self, input: Input<()>) {
        self.engine.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let mut kept = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Dial { address } => {
                    self.last_dial.clone_from(&address);
                    self.dials.push(address);
                }
                Output::Send { link, header, .. } => self.sent.push((link, header.body)),
                Output::Close { link, .. } => {
                    self.closed.push(link);
                    self.open.retain(|(_, open)| *open != link);
                }
                Output::Keep {
                    job,
                    operand,
                    block,
                    ..
                } => kept.push(Input::BlockReady {
                    job,
                    operand,
                    block,
                }),
                Output::Compute(task) => self.tasks.push(task),
                Output::Abort { slot } => self.aborted.push(slot),
                _ => {}
            }
        }
        for ready in kept {
            self.input(ready);
        }
    }

    /// The own node leases a tile, and the page has begun to compute it.
    fn start_tile(&mut self, tile: u32) -> SlabTask {
        self.hear(HOME, open(HOME));
        let header = Box::new(header());
        let blocks = |manifest: &Manifest| 0..manifest.blocks.len() as u32;
        let (a, b) = (blocks(&header.a), blocks(&header.b));
        self.hear(HOME, Message::Job(header));
        let grant = Grant {
            lease: LeaseId(5),
            tile,
            lasts: LONG,
        };
        self.hear(
            HOME,
            Message::Grants {
                job: JOB,
                epoch: epoch(HOME, 1),
                grants: vec![grant],
            },
        );
        for (operand, blocks) in [(Operand::A, a), (Operand::B, b)] {
            for block in blocks {
                self.hear(
                    HOME,
                    Message::Block {
                        job: JOB,
                        operand,
                        block,
                    },
                );
            }
        }
        let task = self.tasks.pop().expect("all blocks are there");
        assert!(task.last, "one slab");
        task
    }

    fn finish(&mut self, task: &SlabTask) {
        let bytes = header().tile_bytes(task.grant.tile);
        self.input(Input::SlabDone {
            slot: task.slot,
            kernel: Span::from_millis(10),
            result: Some(((), bytes)),
        });
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        self.input(Input::Tick);
    }

    /// Time passes, as the page wants to be told.
    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let limit = self.now + LONG;
        while !done(self) {
            let next = self.engine.poll_timeout().expect("something to wait for");
            assert!(next <= limit, "waited for the page {what}");
            self.now = self.now.max(next);
            self.input(Input::Tick);
        }
    }

    fn wait_for_dial(&mut self) -> String {
        self.wait_until("to dial", |page| !page.dials.is_empty());
        self.dials.remove(0)
    }

    /// As above, while the own node shows that it is there.
    fn wait_alive_for_dial(&mut self, node: u8) -> String {
        for _ in 0..LONG.0 / 1_000_000 {
            if !self.dials.is_empty() {
                return self.dials.remove(0);
            }
            self.pass(Span::from_secs(1));
            self.hear(node, Message::Pong { nonce: 0 });
        }
        panic!("it does not dial");
    }

    fn dialled(&mut self) -> Vec<String> {
        std::mem::take(&mut self.dials)
    }

    fn refuse_dial(&mut self) {
        self.dials.clear();
        let address = self.last_dial.clone();
        self.input(Input::DialFailed { address });
    }

    fn up(&mut self, n: u8) -> LinkId {
        self.links += 1;
        let link = LinkId(self.links);
        self.dials.clear();
        self.open.push((n, link));
        self.input(Input::LinkUp {
            link,
            door: Door::Page,
            dialled: Some(address(n)),
        });
        link
    }

    /// A node answers the dial and welcomes.
    fn join(&mut self, n: u8) -> LinkId {
        assert_eq!(self.last_dial, address(n));
        let link = self.up(n);
        let attach = |body: &Message| matches!(body, Message::Hello(hello) if hello.attach);
        assert!(self.said(link, attach));
        self.hear_from(link, n, welcome(n));
        self.open.retain(|(of, open)| *of != n || *open == link);
        link
    }

    fn refuse(&mut self, n: u8, reason: Refusal) {
        let link = self.up(n);
        let text = String::new();
        self.hear_from(link, n, Message::Refuse { reason, text });
        assert!(self.closed.contains(&link));
    }

    /// A coordinator that is not the own node opens a job, and the page has a link of its own to it.
    fn open_directly(&mut self, n: u8) -> LinkId {
        let own = self.link_of(HOME);
        self.hear_from(own, n, open(n));
        assert_eq!(self.dialled(), [address(n)]);
        let link = self.up(n);
        let guest = |body: &Message| matches!(body, Message::Hello(hello) if !hello.attach);
        assert!(self.said(link, guest));
        self.hear_from(link, n, welcome(n));
        self.hear(n, open(n));
        assert!(self.said(link, |body| matches!(body, Message::Pull { .. })));
        link
    }

    fn link_of(&self, n: u8) -> LinkId {
        let found = self.open.iter().find(|(of, _)| *of == n);
        found.expect("a link to that node").1
    }

    fn hear(&mut self, n: u8, body: Message) {
        self.hear_from(self.link_of(n), n, body);
    }

    fn hear_from(&mut self, link: LinkId, n: u8, body: Message) {
        let header = Header {
            from: device(n),
            to: device_of(&self.engine),
            body,
        };
        self.input(Input::Frame {
            link,
            header,
            payload: (),
            payload_bytes: 0,
        });
    }

    /// The link to a node breaks.
    fn cut(&mut self, n: u8) {
        let link = self.link_of(n);
        self.open.retain(|(_, open)| *open != link);
        self.dials.clear();
        self.input(Input::LinkDown { link });
    }

    fn said(&self, link: LinkId, what: impl Fn(&Message) -> bool) -> bool {
        self.sent.iter().any(|(to, body)| *to == link && what(body))
    }
}

fn device_of(engine: &PageEngine<()>) -> DeviceId {
    engine.record().device
}

/// Ids that differ in each byte, as hashes do.
fn device(n: u8) -> DeviceId {
    DeviceId(std::array::from_fn(|i| {
        n.wrapping_mul(151).wrapping_add(i as u8).wrapping_mul(37)
    }))
}

fn address(n: u8) -> String {
    format!("192.0.2.{n}:8080")
}

fn node(n: u8) -> DeviceRecord {
    DeviceRecord {
        device: device(n),
        incarnation: 1,
        version: 1,
        name: format!("n{n}"),
        kind: DeviceKind::Native,
        addresses: vec![address(n)],
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

fn welcome(n: u8) -> Message {
    Message::Welcome(Hello {
        version: VERSION,
        mesh: "room".to_owned(),
        record: node(n),
        attach: false,
    })
}

fn epoch(n: u8, counter: u64) -> Epoch {
    let device = device(n);
    Epoch { counter, device }
}

fn open(n: u8) -> Message {
    open_at(n, 1)
}

fn open_at(n: u8, counter: u64) -> Message {
    Message::Open {
        job: JOB,
        epoch: epoch(n, counter),
        class: KernelClass::Any,
        addresses: vec![address(n)],
    }
}

/// A product of one tile and one slab.
fn header() -> JobHeader {
    let element = ElementType {
        dtype: Dtype::F64,
        limbs: 1,
    };
    let manifest = |name: &str| Manifest {
        element,
        bits: 0,
        rows: 64,
        cols: 64,
        blocks: vec![BlockId::of(name.as_bytes())],
    };
    let (a, b) = (manifest("a"), manifest("b"));
    JobHeader {
        job: JOB,
        name: String::new(),
        class: KernelClass::Any,
        tiling: plan::tiling(&a, &b, element, 1),
        a,
        b,
        element,
        stack: 1,
        batch: None,
        guard: None,
        share: None,
    }
}

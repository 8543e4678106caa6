//! Guarded products: who gets which share, what the others hear, and what happens when devices go.

use std::collections::{BTreeMap, BTreeSet};

use gemmesh_protocol::coded::{Refusal, Sharing};
use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId};
use gemmesh_protocol::io::{Input, LinkId, Output};
use gemmesh_protocol::job::{Guard, JobHeader, KernelClass, ShareOf};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::{DeviceRecord, Message};
use gemmesh_protocol::plan;
use gemmesh_protocol::replication::Taken;
use gemmesh_protocol::status::{JobState, Mode};
use gemmesh_protocol::time::{Span, WallTime};

use crate::node::*;

const PRODUCT: JobId = JobId([7; 16]);
const EDGE: u64 = 2_000;
const PRIMES: u16 = 10;

/// What was sent to whom.
type Said = Vec<(DeviceId, Message)>;

fn said(outputs: &[Output<()>]) -> Said {
    let message = |output: &Output<()>| match output {
        Output::Send { header, .. } => Some((header.to, header.body.clone())),
        _ => None,
    };
    outputs.iter().filter_map(message).collect()
}

fn device(id: u8) -> DeviceId {
    DeviceId([id; 32])
}

fn exact(id: u8) -> DeviceRecord {
    let mut record = record(id, NODE);
    record.classes.push(KernelClass::Exact);
    record
}

/// A node with these helpers, on links of their numbers.
fn mesh(helpers: &[u8]) -> Node {
    let mut node = Node::new(ME);
    for &helper in helpers {
        join(&mut node, helper);
    }
    node
}

fn join(node: &mut Node, helper: u8) -> Vec<Output<()>> {
    let mut outputs = node.link_up(helper.into(), gemmesh_protocol::io::Door::Mesh);
    let hello = Message::Hello(hello(exact(helper), false));
    outputs.extend(node.frame(helper.into(), helper, hello));
    outputs
}

fn manifest(rows: u64, cols: u64, element: ElementType, salt: u16) -> Manifest {
    let blocks = 0..Grid::new(rows, cols, element).len();
    Manifest {
        element,
        bits: 0,
        rows,
        cols,
        blocks: blocks
            .map(|n| BlockId::of(&[&salt.to_be_bytes()[..], &n.to_be_bytes()].concat()))
            .collect(),
    }
}

fn product(mode: Mode, colluders: u32, spares: u32) -> JobHeader {
    let element = ElementType {
        dtype: Dtype::F64,
        limbs: 1,
    };
    let (a, b) = (
        manifest(EDGE, EDGE, element, 1),
        manifest(EDGE, EDGE, element, 2),
    );
    JobHeader {
        job: PRODUCT,
        name: "secret".to_owned(),
        class: KernelClass::Any,
        tiling: plan::tiling_within(&a, &b, element, 2, 2 << 20),
        a,
        b,
        element,
        stack: 1,
        batch: None,
        guard: Some(Box::new(Guard {
            mode,
            colluders,
            spares,
            primes: PRIMES,
            bits_kept: 53,
        })),
        share: None,
    }
}

fn taken(header: JobHeader) -> Taken {
    Taken {
        header,
        submitted: WallTime(0),
        token: BlockId([0; 32]),
    }
}

fn share_id(number: u16) -> JobId {
    JobId([100 + number as u8; 16])
}

/// Shares as a shell would make them.
fn shares(sharing: &Sharing) -> Vec<Taken> {
    let [_, parts, _] = sharing.scheme.cut();
    let element = ElementType {
        dtype: Dtype::Residues,
        limbs: PRIMES,
    };
    let inner = EDGE.div_ceil(parts.into());
    let share = |number: u16| {
        taken(JobHeader {
            job: share_id(number),
            name: String::new(),
            class: KernelClass::Exact,
            a: manifest(EDGE, inner, element, 10 + number),
            b: manifest(inner, EDGE, element, 300 + number),
            element,
            tiling: product(Mode::Private, 1, 0).tiling,
            stack: 1,
            batch: None,
            guard: None,
            share: Some(ShareOf {
                product: PRODUCT,
                number,
            }),
        })
    };
    (0..sharing.shares as u16).map(share).collect()
}

/// Takes a product and gives its shares out.
fn share_out(node: &mut Node, header: JobHeader) -> (Sharing, Said) {
    let outputs = node.input(Input::Submit {
        taken: Box::new(taken(header)),
    });
    let sharing = outputs.iter().find_map(|output| match output {
        Output::Encode { job, sharing } => {
            assert_eq!(*job, PRODUCT);
            Some(Sharing::clone(sharing))
        }
        _ => None,
    });
    let sharing = sharing.expect("shares are asked for");
    let mut all = said(&outputs);
    let encoded = Input::Encoded {
        job: PRODUCT,
        shares: shares(&sharing),
        seconds: 0.5,
    };
    all.extend(said(&node.input(encoded)));
    (sharing, all)
}

/// Who was told of which job.
fn opened(said: &Said) -> Vec<(DeviceId, JobId)> {
    let open = |(to, body): &(DeviceId, Message)| match body {
        Message::Open { job, .. } => Some((*to, *job)),
        _ => None,
    };
    said.iter().filter_map(open).collect()
}

fn pass(node: &mut Node, span: Span) -> Vec<Output<()>> {
    node.now = node.now + span;
    node.input(Input::Tick)
}

#[test]
fn each_device_is_told_of_its_own_share_and_nothing_else() {
    let mut node = mesh(&[1, 2, 3, 4]);
    let (sharing, said) = share_out(&mut node, product(Mode::Private, 1, 0));
    assert_eq!(sharing.answers, 4);
    let opened = opened(&said);
    let mut devices = BTreeSet::new();
    for (to, job) in &opened {
        assert_ne!(*job, PRODUCT, "nobody is told of the product");
        assert!(devices.insert(*to), "no device has two shares");
    }
    assert_eq!(devices.len(), 4, "{opened:?}");
    for (to, body) in &said {
        match body {
            Message::Append { .. } | Message::Job(_) => {
                panic!("{to} has no business with {body:?}")
            }
            Message::Jobs { jobs } => {
                for job in jobs {
                    assert_eq!((job.job, job.result), (PRODUCT, None));
                }
            }
            _ => {}
        }
    }
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert_eq!((status.mode, status.safe_copies), (Mode::Private, 0));
    assert_eq!(status.backups, []);
    let report = status.sharing.unwrap();
    assert_eq!((report.shares, report.answers, report.colluders), (4, 4, 1));
    assert!((report.compute_factor - 2.0).abs() < 1e-12);
    assert_eq!(report.encode_seconds, 0.5);
    // Shares are no jobs for people.
    assert_eq!(node.engine.jobs(node.now).len(), 1);
    assert!(node.engine.job_status(share_id(0), node.now).is_none());
}

#[test]
fn who_asks_for_the_product_or_for_the_share_of_another_gets_nothing() {
    let mut node = mesh(&[1, 2, 3]);
    let (sharing, _) = share_out(&mut node, product(Mode::Private, 1, 0));
    for asker in [1u8, 2, 3] {
        let own = sharing.devices.iter().position(|d| *d == device(asker));
        for (number, job) in (0..3)
            .map(|number| (Some(number), share_id(number as u16)))
            .chain([(None, PRODUCT)])
        {
            let pull = Message::Pull {
                job,
                leases: 4,
                header: true,
            };
            let answer = said(&node.frame(asker.into(), asker, pull));
            let got = answer.iter().any(|(_, body)| match body {
                Message::Job(header) => {
                    assert_eq!(header.share.map(|share| share.product), Some(PRODUCT));
                    assert_eq!(header.name, "");
                    true
                }
                Message::Grants { grants, .. } => !grants.is_empty(),
                _ => false,
            });
            assert_eq!(got, number.is_some() && number == own, "{asker} {number:?}");
            let fetch = Message::Fetch {
                job,
                operand: gemmesh_protocol::job::Operand::A,
                blocks: vec![0],
                link: None,
            };
            let served = node.frame(asker.into(), asker, fetch);
            let served = served.iter().any(|o| matches!(o, Output::Serve { .. }));
            assert_eq!(
                served,
                number.is_some() && number == own,
                "{asker} {number:?}"
            );
        }
    }
}

#[test]
fn a_share_whose_device_is_gone_goes_to_one_that_had_none() {
    let mut node = mesh(&[1, 2, 3]);
    let (sharing, _) = share_out(&mut node, product(Mode::Private, 1, 0));
    let lost = sharing.devices[1];
    let link = LinkId(lost.0[0].into());
    node.input(Input::LinkDown { link });
    // The others have shares already: nobody may have this one.
    let waiting = said(&pass(&mut node, Span::from_millis(600)));
    assert_eq!(opened(&waiting), []);
    let mut after = said(&join(&mut node, 4));
    after.extend(said(&pass(&mut node, Span::from_millis(600))));
    assert_eq!(opened(&after), [(device(4), share_id(1))]);
    // It comes back, and its share is another's now.
    let back = said(&join(&mut node, lost.0[0]));
    assert_eq!(opened(&back), []);
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert!(!status.sharing.unwrap().alone);
}

#[test]
fn who_is_back_in_time_goes_on_with_its_share() {
    let mut node = mesh(&[1, 2, 3]);
    let (sharing, _) = share_out(&mut node, product(Mode::Private, 1, 0));
    let lost = sharing.devices[2];
    node.input(Input::LinkDown {
        link: LinkId(lost.0[0].into()),
    });
    pass(&mut node, Span::from_millis(300));
    node.link_up(50, gemmesh_protocol::io::Door::Mesh);
    let hello = Message::Hello(hello(exact(lost.0[0]), false));
    let back = said(&node.frame(50, lost.0[0], hello));
    assert_eq!(opened(&back), [(lost, share_id(2))]);
    pass(&mut node, Span::from_secs(20));
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert!(!status.sharing.unwrap().alone);
}

#[test]
fn without_enough_devices_the_coordinator_goes_on_alone() {
    let mut node = mesh(&[1, 2, 3]);
    share_out(&mut node, product(Mode::Private, 1, 0));
    node.input(Input::LinkDown { link: LinkId(2) });
    let mut outputs = pass(&mut node, Span::from_millis(600));
    assert!(!outputs.iter().any(|o| matches!(o, Output::Load { .. })));
    outputs = pass(&mut node, Span::from_secs(5));
    // It reads the factors for its own slots, and the shares are of no use any more.
    let loads = |o: &Output<()>| matches!(o, Output::Load { job, .. } if *job == PRODUCT);
    assert!(outputs.iter().any(loads), "{outputs:?}");
    let dropped = |o: &&Output<()>| matches!(o, Output::Drop { .. });
    assert_eq!(outputs.iter().filter(dropped).count(), 3);
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert_eq!(status.state, JobState::Running);
    assert!(status.sharing.unwrap().alone);
    // Others are still told of nothing.
    assert_eq!(opened(&said(&outputs)), []);
    assert_eq!(opened(&said(&join(&mut node, 4))), []);
}

#[test]
fn who_does_nothing_with_its_share_does_not_hold_the_product_up() {
    let mut node = mesh(&[1, 2, 3]);
    share_out(&mut node, product(Mode::Private, 1, 0));
    // All are there, none asks for a tile.
    let mut outputs = Vec::new();
    for _ in 0..40 {
        for helper in [1, 2, 3] {
            let pong = Message::Pong { nonce: 0 };
            outputs.extend(node.frame(helper.into(), helper, pong));
        }
        outputs.extend(pass(&mut node, Span::from_secs(1)));
    }
    let loads = |o: &Output<()>| matches!(o, Output::Load { job, .. } if *job == PRODUCT);
    assert!(outputs.iter().any(loads));
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert!(status.sharing.unwrap().alone);
}

#[test]
fn a_spare_share_spares_the_wait() {
    let mut node = mesh(&[1, 2, 3, 4, 6]);
    let (sharing, _) = share_out(&mut node, product(Mode::Private, 1, 2));
    assert_eq!((sharing.shares, sharing.answers), (5, 3));
    for lost in [1, 2] {
        node.input(Input::LinkDown { link: LinkId(lost) });
    }
    pass(&mut node, Span::from_secs(20));
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert!(!status.sharing.unwrap().alone);
}

#[test]
fn nobody_takes_a_guarded_product_over() {
    let mut node = mesh(&[1, 2, 3]);
    share_out(&mut node, product(Mode::Private, 1, 0));
    let epoch = Epoch {
        counter: 9,
        device: device(1),
    };
    let claim = Message::Claim {
        job: PRODUCT,
        epoch,
    };
    let mut answers = said(&node.frame(1, 1, claim));
    let append = Message::Append {
        job: PRODUCT,
        epoch,
        elapsed: Span(0),
        first: 0,
        entries: Vec::new(),
    };
    answers.extend(said(&node.frame(1, 1, append)));
    assert!(
        answers
            .iter()
            .all(|(_, body)| !matches!(body, Message::Held { .. } | Message::Appended { .. }))
    );
    let mut lie = node.engine.job_status(PRODUCT, node.now).unwrap();
    lie.coordinator = device(1);
    lie.epoch = 9;
    for state in [JobState::Running, JobState::Cancelled, JobState::Done] {
        lie.state = state;
        let jobs = vec![lie.clone()];
        node.frame(1, 1, Message::Jobs { jobs });
    }
    let status = node.engine.job_status(PRODUCT, node.now).unwrap();
    assert_eq!((status.coordinator, status.epoch), (device(ME), 1));
    assert!(!status.state.has_ended());
}

#[test]
fn the_third_share_of_a_masked_product_stays_at_home() {
    let mut node = mesh(&[1, 2, 3]);
    let (sharing, said) = share_out(&mut node, product(Mode::Masked, 1, 0));
    assert_eq!((sharing.shares, sharing.answers), (3, 3));
    assert_eq!(sharing.devices[2], device(ME));
    let jobs: BTreeMap<JobId, DeviceId> = opened(&said)
        .into_iter()
        .map(|(to, job)| (job, to))
        .collect();
    assert_eq!(
        jobs.keys().copied().collect::<Vec<_>>(),
        [share_id(0), share_id(1)]
    );
    assert_ne!(jobs[&share_id(0)], jobs[&share_id(1)]);
}

#[test]
fn too_few_devices_are_a_refusal_with_the_number_needed() {
    let node = mesh(&[1, 2]);
    let refused = node.engine.guarded_outlook(&product(Mode::Private, 1, 0));
    let (needed, found) = (3, 2);
    assert_eq!(
        refused,
        Err(Refusal::TooFew {
            needed,
            found,
            colluders: 1,
            spares: 0
        })
    );
    assert!(
        node.engine
            .guarded_outlook(&product(Mode::Masked, 1, 0))
            .is_ok()
    );
    let refused = mesh(&[1])
        .engine
        .guarded_outlook(&product(Mode::Masked, 1, 0));
    assert_eq!(refused, Err(Refusal::NoPair { found: 1 }));
    // Who does not know shares does not count.
    let mut node = mesh(&[1, 2]);
    node.link_up(3, gemmesh_protocol::io::Door::Mesh);
    let mut old = exact(3);
    old.residues = false;
    node.frame(3, 3, Message::Hello(hello(old, false)));
    assert!(
        node.engine
            .guarded_outlook(&product(Mode::Private, 1, 0))
            .is_err()
    );
}

#[test]
fn shares_that_are_on_the_disk_after_a_restart_are_given_to_nobody() {
    let mut node = mesh(&[1, 2, 3]);
    let (sharing, _) = share_out(&mut node, product(Mode::Private, 1, 0));
    let mut again = mesh(&[1, 2, 3]);
    for share in shares(&sharing) {
        let job = share.header.job;
        let restored = gemmesh_protocol::replication::Restored {
            taken: share,
            elapsed: Span(0),
            epoch: Epoch {
                counter: 1,
                device: device(ME),
            },
            sequence: 0,
            backups: Vec::new(),
            contributors: Vec::new(),
            recorded: Vec::new(),
            held: Vec::new(),
            timeline: Vec::new(),
            ending: None,
            ended: None,
        };
        let outputs = again.input(Input::Restore(Box::new(restored)));
        let dropped =
            |o: &Output<()>| matches!(o, Output::Drop { job: which, .. } if *which == job);
        assert!(outputs.iter().any(dropped), "{outputs:?}");
        assert_eq!(opened(&said(&outputs)), []);
    }
}

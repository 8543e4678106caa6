//! Devices that speak of jobs that are not theirs: no page has a say, nonsense ends the link of who
//! says it, no epoch is out of reach for ever, and what one peer sends takes bounded memory.

use gemmesh_protocol::id::{BlockId, DeviceId, Epoch, JobId, LeaseId, MatrixId};
use gemmesh_protocol::io::{DoneTile, Input, LinkId, Output};
use gemmesh_protocol::job::{JobHeader, KernelClass};
use gemmesh_protocol::matrix::{Dtype, ElementType, Grid, Manifest};
use gemmesh_protocol::message::{Grant, Message, Work};
use gemmesh_protocol::plan;
use gemmesh_protocol::replication::{
    COUNTER_JUMP_MAX, COUNTER_MAX, Entry, Rank, StoredTile, Taken, Vote,
};
use gemmesh_protocol::status::{Contribution, Happening, JobState, JobStatus, Mode, Moment};
use gemmesh_protocol::time::{Span, WallTime};

use crate::node::{HONEST, LIAR, ME, NODE, Node, PAGE, record};

const OWN: JobId = JobId([1; 16]);
const BACKED_UP: JobId = JobId([2; 16]);

#[test]
fn a_page_has_no_say_in_a_job() {
    for message in words(PAGE_ID, OWN)
        .into_iter()
        .chain(nonsense(PAGE_ID, OWN))
    {
        let mut node = mesh();
        node.join(3, PAGE_ID, PAGE, true);
        let said = node.frame(3, PAGE_ID, message.clone());
        assert!(closes(&said, 3), "{message:?}");
        assert_undisturbed(&mut node);
    }
}

#[test]
fn nonsense_ends_the_link_of_who_says_it_and_nothing_else() {
    for job in [OWN, BACKED_UP, JobId([3; 16])] {
        for message in nonsense(LIAR, job) {
            let mut node = mesh();
            let said = node.frame(2, LIAR, message.clone());
            assert!(closes(&said, 2), "{message:?}");
            assert_undisturbed(&mut node);
        }
    }
}

#[test]
fn who_is_far_ahead_of_everybody_is_not_believed() {
    let far = epoch(COUNTER_JUMP_MAX + 9, LIAR);
    for job in [OWN, BACKED_UP] {
        for message in claims(far, job) {
            let mut node = mesh();
            node.frame(2, LIAR, message);
            assert_undisturbed(&mut node);
        }
    }
}

#[test]
fn a_job_that_was_claimed_is_had_back_when_the_claimant_is_gone() {
    let mut node = mesh();
    let mut counter = 1;
    for _ in 0..5 {
        node.join(2, LIAR, NODE, false);
        counter += COUNTER_JUMP_MAX;
        let claim = epoch(counter, LIAR);
        node.frame(
            2,
            LIAR,
            Message::Claim {
                job: OWN,
                epoch: claim,
            },
        );
        assert_eq!(
            node.status(OWN).coordinator,
            DeviceId([LIAR; 32]),
            "claims are believed"
        );
        node.input(Input::LinkDown { link: LinkId(2) });
        node.input(Input::LinkDown { link: LinkId(1) });
        counter = node.claims(OWN).counter;
        assert_eq!(counter, claim.counter + 1);
        let status = node.status(OWN);
        assert_eq!(
            (status.coordinator, status.epoch),
            (DeviceId([ME; 32]), counter)
        );
        let told = status
            .timeline
            .iter()
            .rev()
            .take(2)
            .map(|m| (m.event, m.device));
        let told: Vec<_> = told.collect();
        let expected = [
            (Happening::TookOver, DeviceId([ME; 32])),
            (Happening::Left, DeviceId([LIAR; 32])),
        ];
        assert_eq!(told, expected, "a person sees who left");
    }
}

#[test]
fn entries_that_come_twice_and_out_of_order_say_the_same() {
    let header = header(BACKED_UP);
    let mut log = vec![taken(&header)];
    log.extend((0..4).map(|tile| done(tile, 7)));
    for (seed, turn) in [(1, 3), (2, 5), (3, 7), (5, 2)] {
        let mut node = mesh();
        node.frame(
            1,
            HONEST,
            append(epoch(2, HONEST), BACKED_UP, 0, vec![taken(&header)]),
        );
        for step in 0..40 {
            let from = (seed + step * turn) % log.len();
            let to = (from + 1 + step % 3).min(log.len());
            let entries = log[from..to].to_vec();
            let said = node.frame(
                1,
                HONEST,
                append(epoch(2, HONEST), BACKED_UP, from as u64, entries),
            );
            assert!(!closes(&said, 1));
        }
        let said = node.frame(
            1,
            HONEST,
            append(epoch(2, HONEST), BACKED_UP, 0, log.clone()),
        );
        let acknowledged = sent(&said).find_map(|message| match message {
            Message::Appended { sequence, .. } => Some(*sequence),
            _ => None,
        });
        assert_eq!(acknowledged, Some(log.len() as u64));
        assert_eq!(node.status(BACKED_UP).tiles_done, 4);
    }
}

#[test]
fn one_node_can_not_fill_the_place_for_backups() {
    let mut node = mesh();
    let mut declined = 0;
    for number in 0..1_024_u32 {
        let said = node.frame(2, LIAR, begin(LIAR, numbered(number)));
        declined += usize::from(sent(&said).any(|m| matches!(m, Message::Declined { .. })));
    }
    assert_eq!(declined, 256, "a quarter is for the others");
    let said = node.frame(1, HONEST, begin(HONEST, numbered(9_999)));
    assert!(!sent(&said).any(|message| matches!(message, Message::Declined { .. })));
    assert_undisturbed(&mut node);
}

#[test]
fn ends_full_of_made_up_devices_take_bounded_memory() {
    for (state, most) in [(JobState::Cancelled, 48), (JobState::Done, 96)] {
        let mut node = mesh();
        let mut kept = 0;
        for number in 0..120 {
            let job = numbered(number);
            let mut status = end(job, state);
            status.contributions = vec![contribution(); 4_096];
            let header = header(job);
            let entries = vec![taken(&header), Entry::Ended(Box::new(status))];
            let said = node.frame(2, LIAR, append(epoch(1, LIAR), job, 0, entries));
            kept += usize::from(!sent(&said).any(|m| matches!(m, Message::Declined { .. })));
        }
        assert!((1..=most).contains(&kept), "{kept} {state:?}");
        assert_undisturbed(&mut node);
    }
}

#[test]
fn tiles_that_only_a_word_vouches_for_do_not_hold_a_job_up() {
    let mut node = mesh();
    let tiles = header(OWN).tiling.len() as u32;
    let held = (0..tiles).map(|tile| stored(tile, 3)).collect();
    let (job, epoch, complete) = (OWN, epoch(1, ME), false);
    let mut said = node.frame(
        2,
        LIAR,
        Message::Held {
            job,
            epoch,
            tiles: held,
            complete,
        },
    );
    let mut asked = 0;
    while let Some(tile) = said.iter().find_map(|output| match output {
        Output::FetchTile { tile, .. } => Some(*tile),
        _ => None,
    }) {
        asked += 1;
        let (from, payload) = (DeviceId([LIAR; 32]), None);
        said.retain(|output| !matches!(output, Output::FetchTile { tile: t, .. } if *t == tile));
        said.extend(node.input(Input::TileFetched {
            job,
            tile,
            from,
            payload,
        }));
    }
    assert!(asked <= 7, "{asked} of {tiles} tiles");
    assert_undisturbed(&mut node);
}

#[test]
fn a_lease_number_that_was_guessed_takes_no_tile_away() {
    let mut node = mesh();
    let (job, header) = (OWN, false);
    let granted = |said: &[Output<()>]| -> Vec<Grant> {
        let grants = sent(said).filter_map(|message| match message {
            Message::Grants { grants, .. } => Some(grants.clone()),
            _ => None,
        });
        grants.flatten().collect()
    };
    let first = granted(&node.frame(
        2,
        LIAR,
        Message::Pull {
            job,
            leases: 1,
            header,
        },
    ));
    let mut guessed = first[0];
    guessed.lease = LeaseId(first[0].lease.0 + 1);
    guessed.tile = (0..).find(|tile| *tile != first[0].tile).expect("another");
    let (resumed, grants) = (epoch(1, ME), vec![guessed]);
    node.frame(
        2,
        LIAR,
        Message::Resume {
            job,
            epoch: resumed,
            grants,
        },
    );
    let second = granted(&node.frame(
        1,
        HONEST,
        Message::Pull {
            job,
            leases: 1,
            header,
        },
    ));
    assert!(
        second.iter().all(|grant| grant.lease != guessed.lease),
        "{second:?}"
    );
}

#[test]
fn a_job_that_was_cancelled_is_not_brought_back_by_an_old_log() {
    let mut node = mesh();
    // This node is no backup of it any more.
    let others = Entry::Backups(vec![DeviceId([7; 32])]);
    let entries = vec![others];
    node.frame(1, HONEST, append(epoch(1, HONEST), BACKED_UP, 1, entries));
    let mut status = end(BACKED_UP, JobState::Cancelled);
    status.coordinator = DeviceId([HONEST; 32]);
    let said = node.frame(1, HONEST, Message::Jobs { jobs: vec![status] });
    let kept = |output: &Output<()>| matches!(output, Output::Ended { status } if status.state == JobState::Cancelled);
    assert!(said.iter().any(kept), "the end is on the disk: {said:?}");
    for message in claims(epoch(1, LIAR), BACKED_UP) {
        let said = node.frame(2, LIAR, message);
        let told = |message: &Message| {
            matches!(message, Message::Vote { vote: Vote::Ended(status), .. }
                if status.state == JobState::Cancelled)
        };
        assert!(sent(&said).any(told), "{said:?}");
        assert!(
            !said
                .iter()
                .any(|output| matches!(output, Output::Record { .. }))
        );
    }
}

#[test]
fn a_job_whose_time_is_over_leaves_a_trace() {
    let mut node = mesh();
    let gone = Message::Vote {
        job: BACKED_UP,
        vote: Vote::Gone,
    };
    let said = node.frame(2, LIAR, gone);
    let for_good = |output: &Output<()>| matches!(output, Output::Drop { for_good: true, .. });
    assert!(said.iter().any(for_good), "{said:?}");
}

const PAGE_ID: u8 = 7;

/// A node with a job of its own and one of [`HONEST`], linked to that and to [`LIAR`].
fn mesh() -> Node {
    let mut node = Node::new(ME);
    node.join(1, HONEST, NODE, false);
    node.join(2, LIAR, NODE, false);
    let Entry::Taken(taken) = taken(&header(OWN)) else {
        unreachable!("it is one")
    };
    node.input(Input::Submit { taken });
    node.frame(1, HONEST, begin(HONEST, BACKED_UP));
    assert_undisturbed(&mut node);
    node
}

fn assert_undisturbed(node: &mut Node) {
    for (job, coordinator) in [(OWN, ME), (BACKED_UP, HONEST)] {
        let status = node.status(job);
        let found = (status.coordinator, status.epoch, status.state.has_ended());
        assert_eq!(found, (DeviceId([coordinator; 32]), 1, false));
    }
    let said = node.frame(
        1,
        HONEST,
        append(epoch(1, HONEST), BACKED_UP, 1, Vec::new()),
    );
    let heard = |message: &Message| matches!(message, Message::Appended { .. });
    assert!(sent(&said).any(heard), "who is honest is heard");
}

impl Node {
    fn status(&self, job: JobId) -> JobStatus {
        self.engine
            .job_status(job, self.now)
            .expect("a job that is known")
    }

    /// Time passes until this node claims the job; then its epoch is durable.
    fn claims(&mut self, job: JobId) -> Epoch {
        for _ in 0..100 {
            self.now = self.now + Span::from_millis(500);
            for output in self.input(Input::Tick) {
                if let Output::Claim { epoch, .. } = output {
                    self.input(Input::Claimed { job, epoch });
                    return epoch;
                }
            }
        }
        panic!("nobody goes on with the job");
    }
}

fn epoch(counter: u64, device: u8) -> Epoch {
    let device = DeviceId([device; 32]);
    Epoch { counter, device }
}

/// What takes a job away from others when it is believed.
fn claims(epoch: Epoch, job: JobId) -> Vec<Message> {
    let device = epoch.device;
    let rank = Rank {
        epoch,
        sequence: 1,
        place: 3,
        device,
    };
    vec![
        Message::Claim { job, epoch },
        Message::Elect { job, rank },
        append(epoch, job, 0, vec![taken(&header(job))]),
    ]
}

/// Right in form, if only a node said them.
fn words(from: u8, job: JobId) -> Vec<Message> {
    let (own, ours) = (epoch(2, from), epoch(1, ME));
    let mut words = claims(own, job);
    words.extend([
        Message::Declined { job },
        Message::Vote {
            job,
            vote: Vote::Gone,
        },
        Message::Vote {
            job,
            vote: Vote::Lives { epoch: own },
        },
        Message::Held {
            job,
            epoch: ours,
            tiles: vec![stored(0, 1)],
            complete: true,
        },
        Message::Appended {
            job,
            epoch: ours,
            sequence: 1,
            inputs: true,
            ended: true,
        },
        Message::Jobs {
            jobs: vec![end(job, JobState::Cancelled)],
        },
    ]);
    words
}

/// What nobody says who means well.
fn nonsense(from: u8, job: JobId) -> Vec<Message> {
    let (own, another) = (epoch(2, from), JobId([8; 16]));
    let device = own.device;
    let rank = Rank {
        epoch: own,
        sequence: 1,
        place: 3,
        device,
    };
    let mut messages = Vec::new();
    for counter in [COUNTER_MAX + 1, u64::MAX] {
        let epoch = epoch(counter, from);
        messages.extend(claims(epoch, job));
        messages.push(Message::Vote {
            job,
            vote: Vote::Lives { epoch },
        });
    }
    messages.push(Message::Claim {
        job,
        epoch: epoch(2, HONEST),
    });
    let rank = Rank {
        device: DeviceId([HONEST; 32]),
        ..rank
    };
    messages.push(Message::Elect { job, rank });
    messages.push(append(epoch(2, HONEST), job, 0, vec![taken(&header(job))]));
    messages.push(append(own, job, u64::MAX, vec![taken(&header(job))]));
    let vote = Vote::Ended(Box::new(end(another, JobState::Done)));
    messages.push(Message::Vote { job, vote });
    let vote = Vote::Ended(Box::new(end(job, JobState::Running)));
    messages.push(Message::Vote { job, vote });
    if job == OWN {
        let (epoch, complete) = (epoch(1, ME), true);
        for tiles in [vec![stored(u32::MAX, 1)], vec![stored(0, 1); 2_049]] {
            messages.push(Message::Held {
                job,
                epoch,
                tiles,
                complete,
            });
        }
    }
    let known = header(job);
    let mut wrong = known.clone();
    wrong.tiling.tile_rows = 0;
    for entries in [vec![taken(&header(another))], vec![taken(&wrong)]] {
        messages.push(append(own, job, 0, entries));
    }
    let mut insane = record(3, NODE);
    insane.mflops = f64::NAN;
    let mut never = moment();
    never.at = f64::NAN;
    let mut ends = [
        end(another, JobState::Done),
        end(job, JobState::Done),
        end(job, JobState::Done),
    ];
    ends[1].epoch = u64::MAX;
    ends[2].contributions = vec![contribution(); 4_097];
    let tile = u32::MAX;
    let me = DeviceId([ME; 32]);
    let twice = vec![DeviceId([3; 32]); 2];
    let entries = [
        taken(&known),
        done(tile, 1),
        Entry::Keep { tile, keeper: me },
        Entry::Held { tile, holder: me },
        Entry::Contributor(Box::new(insane)),
        Entry::Moment(never),
        Entry::Backups(twice),
    ];
    let ends = ends.map(|status| Entry::Ended(Box::new(status)));
    for entry in entries.into_iter().chain(ends) {
        messages.push(append(own, job, 0, vec![taken(&known), entry]));
    }
    let many = std::iter::once(taken(&known)).chain((0..256).map(|_| Entry::Moment(moment())));
    messages.push(append(own, job, 0, many.collect()));
    messages
}

fn begin(from: u8, job: JobId) -> Message {
    append(epoch(1, from), job, 0, vec![taken(&header(job))])
}

fn append(epoch: Epoch, job: JobId, first: u64, entries: Vec<Entry>) -> Message {
    let elapsed = Span(0);
    Message::Append {
        job,
        epoch,
        elapsed,
        first,
        entries,
    }
}

fn taken(header: &JobHeader) -> Entry {
    Entry::Taken(Box::new(Taken {
        header: header.clone(),
        submitted: WallTime(0),
        token: BlockId([0; 32]),
    }))
}

fn done(tile: u32, digest: u8) -> Entry {
    let stored = stored(tile, digest);
    Entry::Done {
        stored,
        keeper: None,
    }
}

fn stored(tile: u32, digest: u8) -> StoredTile {
    let (device, work) = (DeviceId([HONEST; 32]), Work::default());
    let digest = BlockId([digest; 32]);
    StoredTile {
        done: DoneTile { tile, device, work },
        digest,
    }
}

fn moment() -> Moment {
    Moment {
        at: 0.0,
        event: Happening::Joined,
        device: DeviceId([3; 32]),
        name: String::new(),
        tile: None,
        epoch: 1,
    }
}

fn contribution() -> Contribution {
    Contribution {
        device: DeviceId([3; 32]),
        name: String::new(),
        kind: NODE,
        slots: 1,
        tiles: 1,
        rows: 1,
        operations: 1,
        compute_ms: 1.0,
        transfer_ms: 1.0,
        mflops: 1.0,
        user_agent: String::new(),
    }
}

fn end(job: JobId, state: JobState) -> JobStatus {
    JobStatus {
        job,
        name: String::new(),
        state,
        rows: 1,
        inner: 1,
        cols: 1,
        dtype: Dtype::F64,
        mode: Mode::Plain,
        sharing: None,
        tiles_total: 1,
        tiles_done: 1,
        tiles_safe: 0,
        tiles_recomputed: 0,
        coordinator: DeviceId([LIAR; 32]),
        epoch: 1,
        safe_copies: 0,
        submitted: WallTime(0),
        seconds: 1.0,
        predicted_seconds: None,
        plan: Vec::new(),
        bytes_sent: 0,
        bytes_floor: 0,
        bytes_replicated: 0,
        result: (state == JobState::Done).then_some(MatrixId([3; 32])),
        error: None,
        contributions: Vec::new(),
        backups: Vec::new(),
        timeline: Vec::new(),
        part: None,
        products: None,
        failed: None,
    }
}

fn numbered(number: u32) -> JobId {
    let mut job = JobId([200; 16]);
    job.0[..4].copy_from_slice(&number.to_be_bytes());
    job
}

fn header(job: JobId) -> JobHeader {
    let element = ElementType {
        dtype: Dtype::F64,
        limbs: 1,
    };
    let manifest = |rows, cols| Manifest {
        element,
        bits: 0,
        rows,
        cols,
        blocks: (0..Grid::new(rows, cols, element).len())
            .map(|n| BlockId::of(&n.to_be_bytes()))
            .collect(),
    };
    let (a, b) = (manifest(2_048, 4_096), manifest(4_096, 2_048));
    JobHeader {
        job,
        name: String::new(),
        class: KernelClass::Any,
        tiling: plan::tiling(&a, &b, element, 4),
        a,
        b,
        element,
        stack: 1,
        batch: None,
        guard: None,
        share: None,
    }
}

fn sent(outputs: &[Output<()>]) -> impl Iterator<Item = &Message> {
    outputs.iter().filter_map(|output| match output {
        Output::Send { header, .. } => Some(&header.body),
        _ => None,
    })
}

fn closes(outputs: &[Output<()>], link: u64) -> bool {
    let closed = |output: &Output<()>| matches!(output, Output::Close { link: l, reason: Some(_) } if l.0 == link);
    outputs.iter().any(closed)
}

//! Private and masked products with real processes: the result is right, helpers learn nothing, also those that record
//! all they see and ask for more, that lie, or that die.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use gemmesh_kernel::{Class, Element, Placement, TileProduct, TileSpec};
use gemmesh_protocol::id::{DeviceId, JobId};
use gemmesh_protocol::job::{JobHeader, Operand};
use gemmesh_protocol::matrix::{Dtype, Part};
use gemmesh_protocol::message::{Grant, Header, Message, Work};
use gemmesh_protocol::time::Span;
use gemmesh_tests::integers::Integers;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, Node, Options, fresh_mesh};
use gemmesh_tests::peer::Peer;
use gemmesh_tests::wait::{until, until_true};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);

/// A coordinator and so many helpers, all of which know each other.
fn mesh(name: &str, helpers: usize) -> (String, Node, Vec<Node>) {
    let mesh = fresh_mesh();
    let first = Options::loopback(name, &mesh).arg("--no-mdns").start();
    let helpers: Vec<Node> = (0..helpers).map(|n| helper(&first, &mesh, n)).collect();
    first.api.await_devices(1 + helpers.len());
    (mesh, first, helpers)
}

fn helper(first: &Node, mesh: &str, number: usize) -> Node {
    let options = Options::loopback(&format!("helper-{number}"), mesh).arg("--no-mdns");
    options.arg("--peer").arg(&first.api.address).start()
}

/// A job that was taken: its id and its token.
fn submit(api: &Api, request: &Value) -> (String, String) {
    let answer = api.post("/api/jobs", request);
    let answer = answer.expect(202).json();
    let text = |name: &str| answer[name].as_str().expect("text").to_owned();
    (text("job"), text("token"))
}

fn result(api: &Api, job: &str, token: &str, format: &str) -> Vec<u8> {
    let path = format!("/api/jobs/{job}/result?format={format}");
    let bearer = format!("Bearer {token}");
    let reply = api.request("GET", &path, &[("Authorization", &bearer)], Vec::new());
    reply.expect("an answer").expect(200).body.clone()
}

/// Operations of each device, by its name.
fn operations(status: &Value) -> BTreeMap<String, u64> {
    let parts = status["contributions"].as_array().expect("a list");
    let part = |part: &Value| {
        let name = part["name"].as_str().expect("a name").to_owned();
        (name, part["operations"].as_u64().expect("a number"))
    };
    parts.iter().map(part).collect()
}

#[test]
fn every_mode_gives_the_product_and_says_what_it_cost() {
    let (_mesh, node, _helpers) = mesh("modes", 5);
    let api = &node.api;
    let (a, b) = (Integers::random(300, 210, 1), Integers::random(210, 130, 2));
    let (a_id, b_id) = (api.matrix(&a.npy()), api.matrix(&b.npy()));
    let plain = 2 * 300 * 210 * 130;
    for (request, shares, factor) in [
        (json!({"mode": "private"}), 5, 5.0 / 3.0),
        (json!({"mode": "private", "colluders": 2}), 5, 5.0),
        (json!({"mode": "private", "stragglers": 2}), 5, 5.0),
        (json!({"mode": "masked"}), 3, 3.0),
    ] {
        let mut request = request;
        request["a"] = a_id.as_str().into();
        request["b"] = b_id.as_str().into();
        let (job, token) = submit(api, &request);
        let status = api.ended(&job, LIMIT);
        assert_eq!(status["state"], "done", "{status:#}");
        assert_eq!(status["mode"], request["mode"]);
        assert_eq!(status["safe_copies"], 0);
        let csv = result(api, &job, &token, "csv");
        assert_eq!(a.product_fault(&b, &csv), None, "{request}");
        let sharing = &status["sharing"];
        // The fastest sharing of all is taken; some are as fast with fewer devices.
        if sharing["shares"] == shares {
            let said = sharing["compute_factor"].as_f64().expect("a number");
            assert!((said - factor).abs() < 1e-9, "{sharing:#}");
        }
        let said = sharing["compute_factor"].as_f64().expect("a number");
        let all: u64 = operations(&status).values().sum();
        // The last answers of spare shares are not waited for, and parts are rounded up.
        let most = said * plain as f64 * 1.02;
        assert!(all as f64 <= most, "{all} of {most}: {status:#}");
        let least = match request["stragglers"].is_null() {
            true => said * plain as f64,
            false => plain as f64,
        };
        assert!(all as f64 >= least, "{all} of {least}: {status:#}");
        assert!(
            sharing["reveals"]
                .as_str()
                .is_some_and(|text| text.contains("learn"))
        );
    }
    // Floats as integers of a stated precision.
    let (a, b) = (Matrix::random(150, 220, 5), Matrix::random(220, 170, 6));
    let (a_id, b_id) = (api.matrix(&a.npy()), api.matrix(&b.npy()));
    for mode in ["private", "masked"] {
        let (job, token) = submit(api, &json!({"a": a_id, "b": b_id, "mode": mode}));
        let status = api.ended(&job, LIMIT);
        assert_eq!(status["sharing"]["bits_kept"], 53, "{status:#}");
        let product = Matrix::from_npy(&result(api, &job, &token, "npy"));
        product.assert_is_product(&a, &b);
    }
    let mut infinite = a.clone();
    infinite.set(3, 4, f64::INFINITY);
    let id = api.matrix(&infinite.npy());
    let (job, _) = submit(api, &json!({"a": id, "b": b_id, "mode": "private"}));
    let status = api.ended(&job, LIMIT);
    let error = status["error"].as_str().expect("a reason");
    assert!(error.contains("row 4 and column 5"), "{error}");
}

#[test]
fn what_a_job_asks_for_and_can_not_have_is_refused_with_the_number() {
    let (_mesh, node, _helpers) = mesh("few", 2);
    let ids = [0; 2].map(|_| node.api.matrix(&Matrix::random(20, 20, 3).npy()));
    for (wish, code, part) in [
        (
            json!({"mode": "private"}),
            "too_few_devices",
            "needs 3 devices",
        ),
        (
            json!({"mode": "private", "colluders": 2, "stragglers": 1}),
            "too_few_devices",
            "needs 6 devices",
        ),
        (
            json!({"mode": "private", "colluders": 0}),
            "wrong_type",
            "colluders",
        ),
        (
            json!({"mode": "masked", "colluders": 1}),
            "wrong_mode",
            "colluders",
        ),
        (json!({"mode": "hidden"}), "unknown_mode", "hidden"),
    ] {
        for explain in [false, true] {
            let mut request = wish.clone();
            request["a"] = ids[0].as_str().into();
            request["b"] = ids[1].as_str().into();
            request["explain"] = explain.into();
            let error = node.api.post("/api/jobs", &request).expect(422).json()["error"].clone();
            assert_eq!(error["code"], code, "{error:#}");
            let message = error["message"].as_str().expect("text");
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn a_curious_helper_sees_uniform_numbers_and_gets_nothing_else() {
    let (mesh, node, _helpers) = mesh("curious", 2);
    let api = &node.api;
    let spy = Spy::start(&node, &mesh, Kind::Honest);
    api.await_devices(4);
    let side = 320;
    let zeros = Integers::zeros(side, side);
    let large = Integers::random(side, side, 8);
    let put = |body: Vec<u8>, headers: &[(&str, &str)]| {
        let reply = api.request("PUT", "/api/matrices?private=1", headers, body);
        let reply = reply.expect("an answer").expect(201).json();
        ["id", "token"].map(|name| reply[name].as_str().expect("text").to_owned())
    };
    let [zeros_id, owner] = put(zeros.npy(), &[]);
    let bearer = format!("Bearer {owner}");
    let [large_id, _] = put(large.npy(), &[("Authorization", &bearer)]);
    for (a, a_id) in [(&zeros, &zeros_id), (&large, &large_id)] {
        let request = json!({"a": a_id, "b": large_id, "mode": "private", "name": "mine"});
        let request = request.to_string().into_bytes();
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/json"),
        ];
        let answer = api
            .request("POST", "/api/jobs", &headers, request)
            .expect("an answer");
        let answer = answer.expect(202).json();
        let text = |name: &str| answer[name].as_str().expect("text").to_owned();
        let (job, token) = (text("job"), text("token"));
        let status = api.ended(&job, LIMIT);
        assert_eq!(
            a.product_fault(&large, &result(api, &job, &token, "csv")),
            None
        );
        assert!(
            operations(&status).contains_key("spy"),
            "it had a share: {status:#}"
        );
        let seen = spy
            .seen
            .recv_timeout(LIMIT)
            .expect("it has computed its share");
        let primes = usize::from(seen.header.a.element.limbs);
        assert_eq!(seen.header.a.element.dtype, Dtype::Residues);
        assert_eq!(seen.header.name, "");
        for (operand, bytes) in [(Operand::A, &seen.a), (Operand::B, &seen.b)] {
            assert!(bytes.len() >= side * side * 2 * primes / 2, "{operand:?}");
            for prime in 0..primes {
                assert_uniform(bytes, primes, prime);
            }
        }
        // What it knows: its own job, and whatever it can ask for.
        let own = seen.header.job;
        let product = &job;
        let result_id = status["result"].as_str().expect("an id");
        let share = seen.header.a.id();
        for path in [
            format!("/api/matrices/{a_id}?format=csv"),
            format!("/api/matrices/{a_id}?format=blocks"),
            format!("/api/matrices/{a_id}/picture"),
            format!("/api/matrices/{result_id}?format=csv"),
            format!("/api/matrices/{result_id}/picture"),
            format!("/api/matrices/{share}?format=blocks"),
            format!("/api/jobs/{product}/result?format=csv"),
            format!("/mesh/jobs/{product}/tiles/0"),
            format!("/mesh/jobs/{own}/tiles/0"),
        ] {
            for bearer in ["", "Bearer 0123456789abcdef0123456789abcdef"] {
                let headers: &[(&str, &str)] = match bearer {
                    "" => &[],
                    bearer => &[("Authorization", bearer)],
                };
                let reply = api
                    .request("GET", &path, headers, Vec::new())
                    .expect("an answer");
                assert!(
                    [403, 404, 410].contains(&reply.status),
                    "{path}: {}",
                    reply.text()
                );
            }
        }
        for request in [
            json!({"a": a_id, "b": large_id}),
            json!({"a": result_id, "b": [[1]]}),
            json!({"batch": [{"a": a_id, "b": large_id}]}),
        ] {
            let reply = api.post("/api/jobs", &request);
            assert!(
                ![200, 202].contains(&reply.status),
                "{request}: {}",
                reply.text()
            );
        }
        assert_eq!(api.delete(&format!("/api/jobs/{product}")).status, 403);
    }
    drop(node);
    let (asked, got) = spy.thread.join().expect("it ends with its connection");
    assert!(asked > 0, "it asked for what is not its own");
    assert_eq!(got, 0, "and got nothing");
}

#[test]
fn a_private_matrix_is_for_who_has_its_token() {
    let node = Options::loopback("tokens", &fresh_mesh())
        .arg("--no-mdns")
        .start();
    let api = &node.api;
    let body = Matrix::random(9, 7, 1).npy();
    let put = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        let reply = api.request("PUT", path, headers, body.to_vec());
        reply.expect("an answer").expect(201).json()
    };
    let first = put("/api/matrices?private=1", &[], &body);
    let (id, token) = (
        first["id"].as_str().unwrap(),
        first["token"].as_str().unwrap(),
    );
    let bearer = format!("Bearer {token}");
    let path = format!("/api/matrices/{id}?format=npy");
    let get = |path: &str, headers: &[(&str, &str)]| {
        api.request("GET", path, headers, Vec::new())
            .expect("an answer")
            .status
    };
    assert_eq!(get(&path, &[]), 403);
    assert_eq!(
        get(&path, &[("Authorization", "Bearer 0123456789abcdef")]),
        403
    );
    assert_eq!(get(&path, &[("Authorization", &bearer)]), 200);
    // Another one with the same token.
    let other = Matrix::random(7, 5, 2);
    let second = put(
        "/api/matrices?private=1",
        &[("Authorization", &bearer)],
        &other.npy(),
    );
    assert_eq!(second["token"], token);
    let weak = api.request(
        "PUT",
        "/api/matrices?private=1",
        &[("Authorization", "Bearer 1")],
        body.clone(),
    );
    weak.expect("an answer").expect(422);
    // Until the same content is sent for everybody.
    assert_eq!(
        get(
            &format!(
                "/api/matrices/{}?format=npy",
                second["id"].as_str().unwrap()
            ),
            &[]
        ),
        403
    );
    put("/api/matrices", &[], &body);
    assert_eq!(get(&path, &[]), 200);
}

#[test]
fn a_liar_is_found_out_and_its_share_goes_to_another_device() {
    let (mesh, node, _helpers) = mesh("lied-to", 2);
    let liar = Spy::start(&node, &mesh, Kind::Liar);
    node.api.await_devices(4);
    let _reserve = helper(&node, &mesh, 7);
    node.api.await_devices(5);
    let (a, b) = (Integers::random(280, 300, 1), Integers::random(300, 260, 2));
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    // All that are there are asked, the liar first.
    let request = json!({"a": a_id, "b": b_id, "mode": "private"});
    until("a lie to be told", LIMIT, || {
        let (job, token) = submit(&node.api, &request);
        let status = node.api.ended(&job, LIMIT);
        assert_eq!(
            a.product_fault(&b, &result(&node.api, &job, &token, "csv")),
            None,
            "{status:#}"
        );
        assert!(
            !operations(&status).contains_key("spy"),
            "nothing of it counts: {status:#}"
        );
        let timeline = status["timeline"].as_array().expect("a list");
        let named = |moment: &&Value| moment["event"] == "quarantined" && moment["name"] == "spy";
        match timeline.iter().any(|moment| named(&moment)) {
            true => Ok(()),
            false => Err(format!("{status:#}")),
        }
    });
    drop(node);
    liar.thread.join().expect("it ends with its connection");
}

#[test]
fn the_product_is_there_although_helpers_are_killed() {
    let (_mesh, node, mut helpers) = mesh("killed", 4);
    let (a, b) = (
        Integers::random(1_500, 1_400, 1),
        Integers::random(1_400, 1_300, 2),
    );
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    let (job, token) = submit(&node.api, &json!({"a": a_id, "b": b_id, "mode": "private"}));
    until_true("shares to be computed", LIMIT, || {
        let status = node.api.job(&job);
        operations(&status).len() > 1
    });
    helpers[0].kill();
    helpers[1].kill();
    let status = node.api.ended(&job, LIMIT);
    assert_eq!(status["state"], "done", "{status:#}");
    assert_eq!(
        a.product_fault(&b, &result(&node.api, &job, &token, "csv")),
        None,
        "{status:#}"
    );
    if status["tiles_done"] != status["tiles_total"] {
        panic!("{status:#}");
    }
}

#[test]
fn a_coordinator_that_was_killed_goes_on_with_other_masks() {
    let mesh = fresh_mesh();
    let data = tempfile::tempdir().expect("a directory");
    let start = |port: u16| {
        let options = Options::loopback("phoenix", &mesh).arg("--no-mdns");
        options.port(port).data_dir(data.path()).start()
    };
    let mut node = start(0);
    let port: u16 = node
        .api
        .address
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .expect("a port");
    let helpers: Vec<Node> = (0..3).map(|n| helper(&node, &mesh, n)).collect();
    node.api.await_devices(4);
    let (a, b) = (
        Integers::random(1_200, 1_300, 1),
        Integers::random(1_300, 1_100, 2),
    );
    let (a_id, b_id) = (node.api.matrix(&a.npy()), node.api.matrix(&b.npy()));
    let (job, token) = submit(&node.api, &json!({"a": a_id, "b": b_id, "mode": "private"}));
    until_true("shares to be computed", LIMIT, || {
        !operations(&node.api.job(&job)).is_empty()
    });
    node.kill();
    drop(node);
    let node = start(port);
    let status = node.api.ended(&job, LIMIT);
    assert_eq!(status["state"], "done", "{status:#}");
    assert_eq!(
        a.product_fault(&b, &result(&node.api, &job, &token, "csv")),
        None,
        "{status:#}"
    );
    drop(helpers);
}

// -- a helper by hand --

/// What a helper does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It computes what it should, and is curious.
    Honest,
    /// It returns zeros.
    Liar,
}

/// All that a helper saw of a share.
struct Seen {
    header: Box<JobHeader>,
    a: Vec<u8>,
    b: Vec<u8>,
}

struct Spy {
    seen: mpsc::Receiver<Seen>,
    /// Questions for what is not its own, and what came of them.
    thread: JoinHandle<(u64, u64)>,
}

impl Spy {
    fn start(node: &Node, mesh: &str, kind: Kind) -> Self {
        // Fast enough to be wanted.
        let peer = Peer::join_as(DeviceId([0x22; 32]), node, mesh, "spy", 500_000.0);
        let (sender, seen) = mpsc::channel();
        let thread = std::thread::spawn(move || work(peer, kind, &sender));
        Self { seen, thread }
    }
}

/// Blocks of one job.
#[derive(Default)]
struct Share {
    header: Option<Box<JobHeader>>,
    grants: Vec<(Grant, gemmesh_protocol::id::Epoch)>,
    blocks: BTreeMap<(Operand, u32), Vec<u8>>,
    told: bool,
}

fn work(mut peer: Peer, kind: Kind, seen: &mpsc::Sender<Seen>) -> (u64, u64) {
    let mut shares: BTreeMap<JobId, Share> = BTreeMap::new();
    let mut others: Vec<JobId> = Vec::new();
    let (mut asked, mut got) = (0, 0);
    while let Some((Header { from, body, .. }, payload)) = peer.hear() {
        match body {
            // The list of jobs has products: it asks for them, too.
            Message::Jobs { jobs } => {
                for job in jobs {
                    others.push(job.job);
                    asked += 1;
                    let (job, leases, header) = (job.job, 4, true);
                    peer.say(
                        from,
                        Message::Pull {
                            job,
                            leases,
                            header,
                        },
                        &[],
                    );
                    for operand in [Operand::A, Operand::B] {
                        let (blocks, link) = ((0..8).collect(), None);
                        peer.say(
                            from,
                            Message::Fetch {
                                job,
                                operand,
                                blocks,
                                link,
                            },
                            &[],
                        );
                    }
                }
            }
            Message::Open { job, .. } => {
                shares.entry(job).or_default();
                let (leases, header) = (8, true);
                peer.say(
                    from,
                    Message::Pull {
                        job,
                        leases,
                        header,
                    },
                    &[],
                );
            }
            Message::Job(header) if others.contains(&header.job) => got += 1,
            Message::Block { job, .. } if others.contains(&job) => got += 1,
            Message::Job(header) => {
                let job = header.job;
                shares.entry(job).or_default().header = Some(header);
            }
            Message::Grants { job, epoch, grants } => {
                let Some(share) = shares.get_mut(&job) else {
                    got += grants.len() as u64;
                    continue;
                };
                share
                    .grants
                    .extend(grants.into_iter().map(|grant| (grant, epoch)));
                let Some(header) = &share.header else {
                    continue;
                };
                if kind == Kind::Liar {
                    for (grant, epoch) in std::mem::take(&mut share.grants) {
                        let zeros = vec![0; header.tile_bytes(grant.tile) as usize];
                        answer(&mut peer, from, job, epoch, &grant, &zeros);
                    }
                    continue;
                }
                for operand in [Operand::A, Operand::B] {
                    let count = header.manifest(operand).blocks.len() as u32;
                    let blocks =
                        (0..count).filter(|block| !share.blocks.contains_key(&(operand, *block)));
                    let (blocks, link) = (blocks.collect(), None);
                    peer.say(
                        from,
                        Message::Fetch {
                            job,
                            operand,
                            blocks,
                            link,
                        },
                        &[],
                    );
                }
            }
            Message::Block {
                job,
                operand,
                block,
            } => {
                if let Some(share) = shares.get_mut(&job) {
                    share.blocks.insert((operand, block), payload);
                }
            }
            _ => {}
        }
        for (job, share) in &mut shares {
            let Some(header) = &share.header else {
                continue;
            };
            let all = header.a.blocks.len() + header.b.blocks.len();
            if share.blocks.len() < all {
                continue;
            }
            if !share.told && !share.grants.is_empty() {
                share.told = true;
                let bytes = |operand| {
                    let of = share
                        .blocks
                        .iter()
                        .filter(move |((which, _), _)| *which == operand);
                    of.flat_map(|(_, bytes)| bytes.iter().copied()).collect()
                };
                let all = Seen {
                    header: header.clone(),
                    a: bytes(Operand::A),
                    b: bytes(Operand::B),
                };
                let _ = seen.send(all);
            }
            for (grant, epoch) in std::mem::take(&mut share.grants) {
                let tile = compute(header, &share.blocks, grant.tile);
                answer(&mut peer, from, *job, epoch, &grant, &tile);
            }
        }
    }
    (asked, got)
}

fn answer(
    peer: &mut Peer,
    to: DeviceId,
    job: JobId,
    epoch: gemmesh_protocol::id::Epoch,
    grant: &Grant,
    tile: &[u8],
) {
    let some = Span(1_000);
    let result = Message::Result {
        job,
        epoch,
        lease: grant.lease,
        tile: grant.tile,
        work: Work {
            kernel: some,
            transfer: some,
            busy: some,
        },
    };
    peer.say(to, result, tile);
    let (leases, header) = (8, false);
    peer.say(
        to,
        Message::Pull {
            job,
            leases,
            header,
        },
        &[],
    );
}

/// A tile of residues from all blocks.
fn compute(header: &JobHeader, blocks: &BTreeMap<(Operand, u32), Vec<u8>>, tile: u32) -> Vec<u8> {
    let rect = header.tiling.rect(u64::from(tile));
    let inner = header.a.cols;
    let spec = TileSpec {
        element: Element::Residues {
            primes: header.element.limbs,
        },
        class: Class::Any,
        rows: rect.rows as usize,
        cols: rect.cols as usize,
        inner: inner as usize,
    };
    let mut product = TileProduct::new(spec).expect("a tile");
    product.begin_slab(inner as usize).expect("memory");
    let place = |part: &Part| Placement {
        src_row_len: part.block_cols as usize,
        src_row: part.src_row as usize,
        src_col: part.src_col as usize,
        rows: part.rows as usize,
        cols: part.cols as usize,
        dst_row: part.dst_row as usize,
        dst_col: part.dst_col as usize,
    };
    let a = gemmesh_protocol::tile::Rect {
        col: 0,
        cols: inner,
        ..rect
    };
    for part in header.a.grid().parts(a) {
        let block = &blocks[&(Operand::A, part.index)];
        product
            .put_a(block, place(&part))
            .expect("canonical residues");
    }
    let b = gemmesh_protocol::tile::Rect {
        row: 0,
        rows: inner,
        ..rect
    };
    for part in header.b.grid().parts(b) {
        let block = &blocks[&(Operand::B, part.index)];
        product
            .put_b(block, place(&part))
            .expect("canonical residues");
    }
    product.accumulate().expect("all is there");
    product.finish().expect("one slab")
}

/// Pearson's test with 64 classes: what has another distribution by more than a sixth of a class or so is seen.
/// Uniform numbers fail with a probability below 10^-8.
fn assert_uniform(bytes: &[u8], primes: usize, prime: usize) {
    const CLASSES: usize = 64;
    let field = gemmesh_kernel::coding::residues::fields(primes).expect("they were used")[prime];
    let p = i64::from(field.prime());
    let mut counts = [0u64; CLASSES];
    let mut total = 0u64;
    for element in bytes.chunks_exact(2 * primes) {
        let word = [element[2 * prime], element[2 * prime + 1]];
        let x = i64::from(i16::from_le_bytes(word)) + p / 2;
        assert!((0..p).contains(&x), "canonical");
        counts[(x * CLASSES as i64 / p) as usize] += 1;
        total += 1;
    }
    let expected = |class: i64| {
        let first = |class: i64| (class * p + CLASSES as i64 - 1) / CLASSES as i64;
        (first(class + 1) - first(class)) as f64 / p as f64 * total as f64
    };
    let statistic: f64 = (0..)
        .zip(counts)
        .map(|(class, count)| (count as f64 - expected(class)).powi(2) / expected(class))
        .sum();
    // 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert!(
        statistic < 63.0 + 7.0 * 11.3,
        "{statistic} for {total} residues modulo {p}: {counts:?}"
    );
}

//! Real disks that are full, or that do not give back what they took: no number is ever wrong.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Command, Stdio};

use gemmesh_tests::disk::{self, Damage, SmallDisk, block_files};
use gemmesh_tests::integers::Integers;
use gemmesh_tests::matrices::Matrix;
use gemmesh_tests::node::{Api, FIND_LIMIT, JOB_LIMIT, Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::until;
use serde_json::Value;

const MIB: u64 = 1 << 20;

#[test]
fn a_full_disk_fails_what_needs_it_and_nothing_else() {
    if !disk::available() {
        return;
    }
    let disk = SmallDisk::new(48 * MIB);
    let mesh = fresh_mesh();
    // The budget would refuse in time.
    let small = Options::loopback("small", &mesh)
        .data_dir(&disk.path().join("data"))
        .arg("--disk=1GiB")
        .start();
    let large = Options::loopback("large", &mesh).start();
    await_mesh(&[&small, &large], 0);
    let (a, b) = (
        Matrix::random(1_000, 1_100, 1),
        Matrix::random(1_100, 1_000, 2),
    );
    let stored = upload(&small, [&a, &b]);

    disk.fill(0);
    let refused = small.api.put_matrix(&Matrix::random(900, 900, 3).npy());
    assert_names_the_disk(&refused.expect(413).json());
    // A little room lets it begin, and no more.
    disk.fill(3 * MIB);
    let failed = small.api.multiply(&stored[0], &stored[1]);
    let status = small.api.ended(&failed, JOB_LIMIT);
    assert_eq!(status["state"], "failed", "{status:#}");
    let error = status["error"].as_str().expect("a reason");
    assert!(error.contains("the disk is full"), "{error}");

    // Jobs of the other node end, although this one can not back them up.
    disk.fill(0);
    let other = upload(&large, [&a, &b]);
    let job = large.api.multiply(&other[0], &other[1]);
    assert_is_done(&large.api, &job, [&a, &b]);
    let again = small.api.get(&format!("/api/jobs/{job}/result?format=npy"));
    Matrix::from_npy(&again.expect(200).body).assert_is_product(&a, &b);

    disk.relieve();
    let job = small.api.multiply(&stored[0], &stored[1]);
    assert_is_done(&small.api, &job, [&a, &b]);
    let more = upload(&small, [&b, &a]);
    let job = small.api.multiply(&more[0], &more[1]);
    assert_is_done(&small.api, &job, [&b, &a]);
}

#[test]
fn a_damaged_operand_is_had_from_another_node_or_fails_the_job() {
    let (a, b) = (Matrix::random(900, 1_000, 1), Matrix::random(1_000, 800, 2));
    for damage in [Damage::Flip, Damage::Cut] {
        let lone = Options::loopback("lone", &fresh_mesh()).start();
        let stored = upload(&lone, [&a, &b]);
        damage_all(damage, &lone, "matrix-");
        let job = lone.api.multiply(&stored[0], &stored[1]);
        let status = lone.api.ended(&job, JOB_LIMIT);
        assert_eq!(status["state"], "failed", "{damage:?}: {status:#}");
        let error = status["error"].as_str().expect("a reason");
        assert!(error.contains("damaged"), "{damage:?}: {error}");
        // Another upload of the same bytes mends it.
        assert_eq!(upload(&lone, [&a, &b]), stored);
        let job = lone.api.multiply(&stored[0], &stored[1]);
        assert_is_done(&lone.api, &job, [&a, &b]);

        let mesh = fresh_mesh();
        let [one, two] = ["one", "two"].map(|name| Options::loopback(name, &mesh).start());
        await_mesh(&[&one, &two], 0);
        assert_eq!(upload(&one, [&a, &b]), upload(&two, [&a, &b]));
        damage_all(damage, &one, "matrix-");
        let job = one.api.multiply(&stored[0], &stored[1]);
        assert_is_done(&one.api, &job, [&a, &b]);
        assert!(one.log().contains("was fetched from another node"));
    }
}

#[test]
fn a_damaged_result_is_had_from_another_node_or_refused() {
    let (a, b) = (
        Matrix::random(1_500, 1_600, 3),
        Matrix::random(1_600, 1_400, 4),
    );
    for damage in [Damage::Flip, Damage::Cut] {
        let mesh = fresh_mesh();
        let [one, two] = ["one", "two"].map(|name| Options::loopback(name, &mesh).start());
        await_mesh(&[&one, &two], 0);
        let stored = upload(&one, [&a, &b]);
        let job = one.api.multiply(&stored[0], &stored[1]);
        one.api.done(&job);
        await_copies(&one.api, &job);
        damage_all(damage, &one, "result-");
        assert_is_done(&one.api, &job, [&a, &b]);
        assert!(one.log().contains("was fetched from another node"));

        damage_all(damage, &one, "");
        damage_all(damage, &two, "");
        let path = format!("/api/jobs/{job}/result?format=npy");
        for node in [&one, &two] {
            // It may break off when it has begun.
            let whole = node
                .api
                .try_get(&path)
                .is_ok_and(|reply| reply.status == 200);
            assert!(!whole, "{damage:?}: {} gave a damaged result", node.name);
        }
        let refused = one.api.get(&path);
        assert!(refused.expect(503).text().contains("damaged"));
    }
}

#[test]
fn tiles_that_were_damaged_while_the_power_was_out_are_had_from_others_or_computed_again() {
    let mesh = fresh_mesh();
    let dirs = [(); 3].map(|()| tempfile::tempdir().expect("a temporary directory"));
    let start = || -> Vec<Node> {
        let named = ["north", "east", "south"].into_iter().zip(&dirs);
        let nodes = named
            .map(|(name, dir)| Options::loopback(name, &mesh).data_dir(dir.path()).start())
            .collect::<Vec<_>>();
        await_mesh(&nodes.iter().collect::<Vec<_>>(), 0);
        nodes
    };
    let mut nodes = start();
    // These are slow enough for something to happen meanwhile.
    let (a, b) = (
        Integers::random(2_300, 2_300, 5),
        Integers::random(2_300, 2_300, 6),
    );
    let api = &nodes[0].api;
    let job = api.multiply(&api.matrix(&a.npy()), &api.matrix(&b.npy()));
    until("a quarter of the tiles to be safe", JOB_LIMIT, || {
        let status = nodes[0].api.job(&job);
        assert_ne!(status["state"], "done", "it is long enough: {status:#}");
        let number = |field: &str| status[field].as_u64().expect("a number");
        let enough = 4 * number("tiles_safe") >= number("tiles_total");
        let enough = enough && number("safe_copies") >= 1;
        enough.then_some(()).ok_or_else(|| status.to_string())
    });
    nodes.iter_mut().for_each(Node::kill);
    drop(nodes);
    for file in block_files(dirs[0].path(), "result-") {
        Damage::Flip.of(&file);
    }

    let nodes = start();
    assert!(nodes[0].log().contains("damaged on the disk"));
    for node in &nodes {
        until("the node to know the job", FIND_LIMIT, || {
            let reply = node.api.try_get(&format!("/api/jobs/{job}"))?;
            (reply.status == 200).then_some(()).ok_or(reply.text())
        });
        node.api.done(&job);
        assert_eq!(a.product_fault(&b, &node.api.result(&job, "csv")), None);
    }
}

#[test]
fn a_node_with_a_damaged_database_says_so_and_a_fresh_one_gets_its_copies() {
    let mesh = fresh_mesh();
    let data = tempfile::tempdir().expect("a temporary directory");
    let options = || Options::loopback("one", &mesh).data_dir(data.path());
    let mut one = options().start();
    let two = Options::loopback("two", &mesh).start();
    await_mesh(&[&one, &two], 0);
    let (a, b) = (
        Matrix::random(1_200, 1_000, 7),
        Matrix::random(1_000, 1_300, 8),
    );
    let stored = upload(&one, [&a, &b]);
    let job = one.api.multiply(&stored[0], &stored[1]);
    one.api.done(&job);
    await_copies(&one.api, &job);
    one.interrupt();
    drop(one);

    let file = data.path().join("store.db");
    let mut bytes = fs::read(&file).expect("a database");
    let at = position(&bytes, &hex(&stored[0]));
    bytes[at + 3] ^= 0x20;
    fs::write(&file, bytes).expect("a database");
    let output = Command::new(gemmesh_tests::bin())
        .args(["serve", "--bind=127.0.0.1", "--port=0", "--data-dir"])
        .arg(data.path())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let place = data.path().display().to_string();
    for word in ["store.db is damaged", "blocks", &place] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    block_files(data.path(), "result-");

    // What the message says.
    fs::remove_file(&file).expect("it is there");
    for rest in ["store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(data.path().join(rest));
    }
    fs::remove_dir_all(data.path().join("blocks")).expect("it is there");
    let one = options().start();
    await_mesh(&[&one, &two], 0);
    until("the node to know the job", FIND_LIMIT, || {
        let reply = one.api.try_get(&format!("/api/jobs/{job}"))?;
        (reply.status == 200).then_some(()).ok_or(reply.text())
    });
    assert_is_done(&one.api, &job, [&a, &b]);
}

fn damage_all(damage: Damage, node: &Node, prefix: &str) {
    let files = block_files(node.data_dir(), prefix);
    files.iter().for_each(|file| damage.of(file));
}

fn upload(node: &Node, operands: [&Matrix; 2]) -> [String; 2] {
    operands.map(|operand| node.api.matrix(&operand.npy()))
}

#[track_caller]
fn assert_is_done(api: &Api, job: &str, [a, b]: [&Matrix; 2]) {
    api.done(job);
    Matrix::from_npy(&api.result(job, "npy")).assert_is_product(a, b);
}

#[track_caller]
fn assert_names_the_disk(error: &Value) {
    assert_eq!(error["error"]["code"], "disk_full", "{error:#}");
}

/// Waits until another node has what the job left.
#[track_caller]
fn await_copies(api: &Api, job: &str) {
    until("another node to have the result", JOB_LIMIT, || {
        let status = api.job(job);
        let copies = status["safe_copies"].as_u64().expect("a number");
        (copies >= 1).then_some(()).ok_or(status.to_string())
    });
}

fn hex(id: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&id[at..at + 2], 16).expect("hexadecimal digits");
    (0..id.len()).step_by(2).map(digit).collect()
}

#[track_caller]
fn position(bytes: &[u8], of: &[u8]) -> usize {
    let found = bytes.windows(of.len()).position(|window| window == of);
    found.expect("the database names the matrix")
}

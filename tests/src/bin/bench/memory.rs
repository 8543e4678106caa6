//! What nodes and a command have resident at most while they multiply matrices that are larger.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gemmesh_tests::node::{Node, Options, await_mesh, fresh_mesh};
use gemmesh_tests::wait::within;

/// What each node may have.
const MEMORY: &str = "512M";
const MEMORY_BYTES: u64 = 512 << 20;
/// How often a command that runs is looked at: its peak is not told after its end.
const LOOK: Duration = Duration::from_millis(50);
/// No product takes longer.
const END_MAX: Duration = Duration::from_secs(3_600);
/// Elements of the product that are compared.
const SAMPLES: u64 = 100;

/// Multiplies two matrices of `f32` with this edge on two nodes, from file to file, and prints the table.
pub fn measure(edge: u64) {
    let scratch = tempfile::TempDir::with_prefix("gemmesh-bench-").expect("a directory");
    let path = |name: &str| scratch.path().join(name);
    let [a, b, c] = [path("a.npy"), path("b.npy"), path("c.npy")];
    let mut random = 1;
    for factor in [&a, &b] {
        write(factor, edge, &mut random).expect("room on the disk");
    }
    let megabytes = 4 * edge * edge / 1_000_000;
    println!(
        "{edge} × {edge} f32, {megabytes} MB each, from file to file, two one-thread nodes with --memory {MEMORY}:"
    );
    let mesh = fresh_mesh();
    let nodes = ["one", "two"].map(|name| {
        let options = Options::loopback(name, &mesh).arg(format!("--memory={MEMORY}"));
        let data = path(name);
        options.data_dir(&data).start()
    });
    await_mesh(&nodes.each_ref(), 0);
    let begin = Instant::now();
    let client = multiply(&nodes[0], [&a, &b, &c]);
    println!(
        "  {:.0} s, files, network and disk included",
        begin.elapsed().as_secs_f64()
    );
    for node in &nodes {
        row(&format!("node {}", node.name), node.peak_memory());
        assert!(
            node.peak_memory() <= MEMORY_BYTES,
            "{} took more",
            node.name
        );
    }
    row("gemmesh multiply", client);
    let worst = (0..SAMPLES).map(|_| difference([&a, &b, &c], edge, &mut random));
    let worst = worst.fold(0.0, f64::max);
    println!("  largest relative difference in {SAMPLES} elements: {worst:.1e}");
    assert!(worst < 1e-4, "the product is wrong");
}

fn row(who: &str, peak: u64) {
    let share = 100.0 * peak as f64 / MEMORY_BYTES as f64;
    println!(
        "  {who:<18} {:>6.1} MiB at most, {share:>3.0} % of {MEMORY}",
        peak as f64 / 1_048_576.0
    );
}

/// Runs the command; the most that it had resident.
fn multiply(node: &Node, [a, b, c]: [&Path; 3]) -> u64 {
    let mut child = Command::new(gemmesh_tests::bin())
        .arg("multiply")
        .args([a, b])
        .arg("-o")
        .arg(c)
        .args(["--node", &format!("http://{}", node.api.address)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut peak = 0;
    let ended = within(END_MAX, LOOK, || {
        peak = peak.max(peak_of(&child).unwrap_or(0));
        let status = child.try_wait().expect("a child of ours");
        status.ok_or_else(|| format!("it runs, {peak} bytes at most so far"))
    });
    let status = ended.unwrap_or_else(|seen| panic!("waited {END_MAX:?}: {seen}"));
    assert!(status.success(), "it failed: {status}");
    peak
}

fn peak_of(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// A square matrix of random numbers between -1 and 1, row by row.
fn write(path: &Path, edge: u64, random: &mut u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let dictionary =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({edge}, {edge}), }}");
    file.write_all(b"\x93NUMPY\x01\x00")?;
    file.write_all(&(HEAD - 10).to_le_bytes())?;
    file.write_all(format!("{dictionary:<width$}\n", width = usize::from(HEAD) - 11).as_bytes())?;
    for _ in 0..edge * edge {
        file.write_all(&number(random).to_le_bytes())?;
    }
    file.flush()
}

/// Bytes before the elements: those of the files above, and of all that gemmesh writes.
const HEAD: u16 = 128;

fn number(random: &mut u64) -> f32 {
    next(random);
    (*random >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Xorshift.
fn next(random: &mut u64) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
}

/// How far a random element of C is from what it should be, relative to the sum of magnitudes.
fn difference([a, b, c]: [&Path; 3], edge: u64, random: &mut u64) -> f64 {
    let mut pick = || {
        next(random);
        (*random >> 20) % edge
    };
    let (i, j) = (pick(), pick());
    let [mut a, mut b, mut c] = [a, b, c].map(|path| File::open(path).expect("it is there"));
    let (mut exact, mut magnitude) = (0.0, 0.0);
    let row = elements(&mut a, i * edge, edge);
    for (k, x) in (0..).zip(row) {
        let term = x * elements(&mut b, k * edge + j, 1)[0];
        exact += term;
        magnitude += term.abs();
    }
    let found = elements(&mut c, i * edge + j, 1)[0];
    (found - exact).abs() / magnitude
}

fn elements(file: &mut File, first: u64, count: u64) -> Vec<f64> {
    let mut bytes = vec![0; 4 * count as usize];
    let start = u64::from(HEAD) + 4 * first;
    file.seek(SeekFrom::Start(start))
        .expect("it is long enough");
    file.read_exact(&mut bytes).expect("it is long enough");
    let (elements, _) = bytes.as_chunks::<4>();
    elements
        .iter()
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
        .collect()
}

//! What the system and a node itself say of what it used.

use std::fs;
use std::ops::{Add, Sub};

use gemmesh_tests::node::Node;

/// The thread of a node that writes tiles and the database.
const WRITER: &str = "store-writer";
/// What `/proc/PID/stat` counts in: `USER_HZ`, which is 100 on every Linux that runs this.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a node has used since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of all its threads on a core.
    pub cpu: f64,
    /// Bytes that it caused to be written to the disk.
    pub written: f64,
    /// Of these, those of the database.
    pub database: f64,
    /// Seconds that its store spent with the database, most of them waiting for the disk.
    pub database_seconds: f64,
}

impl Usage {
    /// Of all these nodes.
    ///
    /// # Panics
    /// When the system does not tell.
    pub fn of(nodes: &[Node]) -> Self {
        let all = nodes.iter().map(of_one);
        all.fold(Self::default(), |sum, usage| sum + usage)
    }
}

fn of_one(node: &Node) -> Usage {
    let process = format!("/proc/{}", node.pid());
    let tasks = fs::read_dir(format!("{process}/task")).expect("it runs");
    let written = tasks.flatten().filter_map(|task| {
        // A thread may have ended since.
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let io = fs::read_to_string(task.path().join("io")).ok()?;
        (name.trim() == WRITER).then(|| number_after(&io, "write_bytes:", ' '))
    });
    let by_writer: f64 = written.sum();
    let io = fs::read_to_string(format!("{process}/io")).expect("it runs");
    Usage {
        cpu: cpu_seconds(&process),
        written: number_after(&io, "write_bytes:", ' '),
        database: by_writer - metric(node, "gemmesh_store_tile_bytes_total"),
        database_seconds: metric(node, "gemmesh_store_seconds_total{part=\"database\"}"),
    }
}

/// A metric of the node.
pub fn metric(node: &Node, name: &str) -> f64 {
    let text = node.api.get("/metrics").expect(200).text();
    number_after(&text, &format!("{name} "), ' ')
}

fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("{process}/stat")).expect("it runs");
    // The name, in parentheses, may have spaces.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = [11, 12].map(|at| fields[at].parse::<f64>().expect("a number"));
    ticks.iter().sum::<f64>() / TICKS_PER_SECOND
}

/// The number on the line that begins with `name`.
fn number_after(text: &str, name: &str, separator: char) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim_start_matches(separator).parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {text}"))
}

impl Add for Usage {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            written: self.written + other.written,
            database: self.database + other.database,
            database_seconds: self.database_seconds + other.database_seconds,
        }
    }
}

impl Sub for Usage {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self {
            cpu: self.cpu - other.cpu,
            written: self.written - other.written,
            database: self.database - other.database,
            database_seconds: self.database_seconds - other.database_seconds,
        }
    }
}

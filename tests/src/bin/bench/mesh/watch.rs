//! What else the machine did while something was measured.

use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

/// What `/proc` counts in: `USER_HZ`, which is 100 on every Linux that runs this.
const TICKS_PER_SECOND: f64 = 100.0;
/// Others may use this much of all cores.
const OTHERS_MAX: f64 = 0.05;
/// The machine that this one is a guest of may take this much.
const STOLEN_MAX: f64 = 0.02;

/// Counts from its start.
pub struct Watch {
    began: Instant,
    used: Used,
}

/// Seconds on cores.
#[derive(Debug, Clone, Copy)]
struct Used {
    all: f64,
    stolen: f64,
    /// This process, all that it started, and all that they started.
    ours: f64,
}

impl Watch {
    pub fn start() -> Self {
        Self {
            began: Instant::now(),
            used: Used::now(),
        }
    }

    /// Prints what others used, and whether that makes what was measured void.
    pub fn finish(self) {
        let now = Used::now();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let seconds = self.began.elapsed().as_secs_f64() * cores as f64;
        let ours = now.ours - self.used.ours;
        let others = ((now.all - self.used.all - ours) / seconds).max(0.0);
        let stolen = (now.stolen - self.used.stolen) / seconds;
        let void = others > OTHERS_MAX || stolen > STOLEN_MAX;
        println!(
            "  {}others used {:.1} % of this machine's cores, its host kept {:.1} % for itself",
            if void { "VOID: " } else { "" },
            100.0 * others,
            100.0 * stolen
        );
    }
}

impl Used {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").expect("Linux tells");
        let line = stat.lines().next().expect("all cores");
        let fields = line.split_whitespace().skip(1).map(ticks);
        let fields: Vec<f64> = fields.collect();
        // user nice system idle iowait irq softirq steal
        let all = [0, 1, 2, 5, 6].iter().map(|&n| fields[n]).sum();
        Self {
            all,
            stolen: fields[7],
            ours: ours(),
        }
    }
}

fn ticks(text: &str) -> f64 {
    text.parse::<f64>().expect("a number") / TICKS_PER_SECOND
}

/// Of this process and its descendants; of those that have ended what their parents have counted.
fn ours() -> f64 {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut used = BTreeMap::new();
    let processes = fs::read_dir("/proc").expect("Linux tells").flatten();
    for process in processes {
        let name = process.file_name().to_string_lossy().into_owned();
        let (Ok(id), Ok(stat)) = (
            name.parse::<u32>(),
            fs::read_to_string(process.path().join("stat")),
        ) else {
            continue;
        };
        // The name, in parentheses, may have spaces.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let parent = fields[1].parse().expect("a number");
        children.entry(parent).or_default().push(id);
        // utime stime cutime cstime
        used.insert(id, fields[11..15].iter().map(|field| ticks(field)).sum());
    }
    let mut sum: f64 = 0.0;
    let mut todo = vec![std::process::id()];
    while let Some(id) = todo.pop() {
        sum += used.get(&id).unwrap_or(&0.0);
        todo.extend(children.get(&id).into_iter().flatten());
    }
    sum
}

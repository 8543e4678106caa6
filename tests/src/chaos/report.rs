//! What is said at the end.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::Kind;
use super::takeovers::Takeovers;

/// Violations that are printed of each kind; the rest are counted.
const SHOWN: usize = 10;

/// How a run went.
#[derive(Debug, Default)]
pub struct Report {
    /// What the faults were drawn by.
    pub seed: u64,
    /// How long it took, the check of all results included.
    pub seconds: f64,
    /// How many faults there were of each kind.
    pub faults: Vec<(Kind, usize)>,
    /// Jobs that were acknowledged.
    pub accepted: usize,
    /// Jobs that were done at every node, in the end.
    pub done: usize,
    /// Jobs with a wrong or a missing result.
    pub wrong: Vec<String>,
    /// Jobs that were not done at every node.
    pub lost: Vec<String>,
    /// Leases of safe tiles while a holder could be reached: see [`super::trail`].
    pub repeated: Vec<String>,
    /// Tiles that nodes had on record when they took jobs over.
    pub inherited: u64,
    /// Nodes that ended by themselves, panics, and submissions refused although nothing was wrong with them.
    pub surprises: Vec<String>,
    /// See [`super::takeovers`].
    pub takeovers: Takeovers,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_good(&self) -> bool {
        [&self.wrong, &self.lost, &self.repeated, &self.surprises]
            .iter()
            .all(|list| list.is_empty())
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("seed                       {}\n", self.seed);
        let total: usize = self.faults.iter().map(|(_, count)| count).sum();
        let _ = writeln!(text, "seconds                    {:.0}", self.seconds);
        let _ = writeln!(text, "faults                     {total}");
        for (kind, count) in &self.faults {
            let _ = writeln!(text, "  {:<24} {count}", kind.name());
        }
        let _ = writeln!(text, "jobs accepted              {}", self.accepted);
        let _ = writeln!(text, "jobs done at every node    {}", self.done);
        let _ = writeln!(text, "wrong results              {}", self.wrong.len());
        let _ = writeln!(text, "lost jobs                  {}", self.lost.len());
        let _ = writeln!(
            text,
            "safe tiles computed again  {} while a holder was in reach; {} were on record at takeovers",
            self.repeated.len(),
            self.inherited
        );
        let takeovers = &self.takeovers;
        let _ = writeln!(
            text,
            "takeovers                  {}, {} of them by the same node after its restart",
            takeovers.count, takeovers.by_itself
        );
        for (name, times) in [
            ("from a fault", &takeovers.times),
            ("from kill -9", &takeovers.after_kill),
            ("to the first lease", &takeovers.to_lease),
        ] {
            let _ = writeln!(text, "  {name:<24} {}", in_words(times));
        }
        for (name, list) in self.violations() {
            for one in list.iter().take(SHOWN) {
                let _ = writeln!(text, "{name}: {one}");
            }
            if list.len() > SHOWN {
                let _ = writeln!(text, "{name}: {} more", list.len() - SHOWN);
            }
        }
        text
    }

    /// For machines.
    pub fn json(&self) -> Value {
        let faults: serde_json::Map<String, Value> = self
            .faults
            .iter()
            .map(|(kind, count)| (kind.name().to_owned(), json!(count)))
            .collect();
        let takeovers = &self.takeovers;
        let violations: serde_json::Map<String, Value> = self
            .violations()
            .iter()
            .map(|(name, list)| ((*name).to_owned(), json!(list)))
            .collect();
        json!({
            "seed": self.seed,
            "seconds": self.seconds,
            "faults": faults,
            "jobs_accepted": self.accepted,
            "jobs_done": self.done,
            "wrong_results": self.wrong.len(),
            "lost_jobs": self.lost.len(),
            "safe_tiles_recomputed": self.repeated.len(),
            "tiles_on_record_at_takeovers": self.inherited,
            "takeovers": takeovers.count,
            "takeovers_by_itself": takeovers.by_itself,
            "takeover_ms": summary(&takeovers.times),
            "takeover_after_kill_ms": summary(&takeovers.after_kill),
            "kill_to_first_lease_ms": summary(&takeovers.to_lease),
            "violations": violations,
        })
    }

    fn violations(&self) -> [(&'static str, &Vec<String>); 4] {
        [
            ("wrong result", &self.wrong),
            ("lost job", &self.lost),
            ("safe tile computed again", &self.repeated),
            ("unexpected", &self.surprises),
        ]
    }
}

fn in_words(times: &[u64]) -> String {
    let Some(worst) = times.last() else {
        return "none was measured".to_owned();
    };
    let seconds = |ms: u64| ms as f64 / 1e3;
    format!(
        "median {:.2} s, 95th percentile {:.2} s, worst {:.2} s ({} measured)",
        seconds(percentile(times, 50)),
        seconds(percentile(times, 95)),
        seconds(*worst),
        times.len()
    )
}

fn summary(times: &[u64]) -> Value {
    let Some(worst) = times.last() else {
        return Value::Null;
    };
    json!({
        "count": times.len(),
        "median": percentile(times, 50),
        "p95": percentile(times, 95),
        "worst": worst,
    })
}

/// The least of these, which are sorted and not none, that so many of a hundred do not exceed.
fn percentile(times: &[u64], percent: usize) -> u64 {
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_list() {
        let times: Vec<u64> = (1..=20).collect();
        assert_eq!([50, 95].map(|p| percentile(&times, p)), [10, 19]);
        assert_eq!([50, 95].map(|p| percentile(&[7], p)), [7, 7]);
    }

    #[test]
    fn a_report_is_good_when_nothing_is_wrong() {
        let mut report = Report::default();
        assert!(report.is_good());
        report.lost.push("job 1".to_owned());
        assert!(!report.is_good());
        assert!(report.text().contains("lost job: job 1"));
        assert_eq!(report.json()["lost_jobs"], 1);
    }
}

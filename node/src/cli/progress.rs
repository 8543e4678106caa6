//! What a person sees while a job runs.

use std::io::IsTerminal as _;
use std::time::Duration;

use gemmesh_protocol::status::{JobState, JobStatus};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::text;

/// A bar on standard error; on anything but a terminal nothing at all.
pub struct Progress {
    bar: ProgressBar,
    shown: bool,
}

impl Progress {
    /// Nothing is shown yet.
    pub fn new() -> Self {
        let shown = std::io::stderr().is_terminal();
        let bar = if shown {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        Self { bar, shown }
    }

    /// Whether anybody sees it: otherwise nothing needs to be asked for its sake.
    pub fn is_shown(&self) -> bool {
        self.shown
    }

    /// Something without a known end.
    pub fn step(&self, what: &str) {
        self.bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}").expect("the template is well formed"),
        );
        self.bar.set_message(text::clean(what));
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// A job as it stands.
    pub fn job(&self, status: &JobStatus) {
        // What follows the bar has the first claim on a narrow terminal.
        let columns = super::output::note_columns().unwrap_or(80);
        let bar = columns.saturating_sub(60).clamp(8, 28);
        let template = format!("{{bar:{bar}.cyan/dim}} {{pos}}/{{len}} tiles  {{wide_msg}}");
        let style = ProgressStyle::with_template(&template).expect("the template is well formed");
        self.bar.disable_steady_tick();
        self.bar.set_style(style.progress_chars("━━─"));
        self.bar.set_length(status.tiles_total);
        self.bar.set_position(status.tiles_done);
        self.bar.set_message(line(status));
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// `3.2 GFLOP/s · 3 devices · 4.0 s left`.
fn line(status: &JobStatus) -> String {
    if status.state == JobState::Queued || status.tiles_done == 0 {
        return "waiting for the first tile".to_owned();
    }
    let devices = helpers(status);
    let mut parts = vec![text::gflops(speed(status)), text::count(devices, "device")];
    let left = status.tiles_total.saturating_sub(status.tiles_done);
    if left > 0 && !status.state.has_ended() {
        let seconds = status.seconds * left as f64 / status.tiles_done as f64;
        parts.push(format!("{} left", text::seconds(seconds)));
    }
    parts.join(" · ")
}

/// Devices with at least one accepted tile.
pub fn helpers(status: &JobStatus) -> u64 {
    status
        .contributions
        .iter()
        .filter(|part| part.tiles > 0)
        .count() as u64
}

/// Accepted operations over the time since the submission, in 10^6 per second.
pub fn speed(status: &JobStatus) -> f64 {
    let operations: u64 = status
        .contributions
        .iter()
        .map(|part| part.operations)
        .sum();
    operations as f64 / status.seconds.max(1e-6) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_speed_devices_and_time_left() {
        let status = status(
            10,
            5,
            2.0,
            &[(3, 4_000_000_000), (2, 2_000_000_000), (0, 0)],
        );
        assert_eq!(line(&status), "3.0 GFLOP/s · 2 devices · 2.0 s left");
    }

    #[test]
    fn nothing_is_predicted_from_nothing() {
        assert_eq!(line(&status(10, 0, 2.0, &[])), "waiting for the first tile");
        assert_eq!(
            line(&status(1, 1, 0.0, &[(1, 16)])),
            "16 MFLOP/s · 1 device"
        );
    }

    /// A running job; `parts` are tiles and operations of each device.
    fn status(total: u64, done: u64, seconds: f64, parts: &[(u64, u64)]) -> JobStatus {
        let contributions: Vec<_> = parts
            .iter()
            .map(|(tiles, operations)| {
                serde_json::json!({
                    "device": "00".repeat(32), "name": "d", "kind": "native", "slots": 1,
                    "tiles": tiles, "rows": 1, "operations": operations, "compute_ms": 1.0,
                    "transfer_ms": 0.0, "mflops": 1.0, "user_agent": "",
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({
            "job": "00".repeat(16), "name": "", "state": "running", "rows": 2, "inner": 2,
            "cols": 2, "dtype": "f64", "mode": "plain", "tiles_total": total, "tiles_done": done,
            "tiles_safe": 0, "tiles_recomputed": 0, "coordinator": "00".repeat(32), "epoch": 1,
            "safe_copies": 0, "submitted": "2026-01-01T00:00:00.000Z", "seconds": seconds,
            "predicted_seconds": null, "bytes_sent": 0, "bytes_floor": 0, "bytes_replicated": 0,
            "result": null, "error": null, "contributions": contributions,
        }))
        .unwrap()
    }
}

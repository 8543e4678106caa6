//! Waiting for conditions.

use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks at `probe` until it succeeds. Its error says what was seen instead, for the one who reads the
/// failure.
///
/// # Panics
/// When it has not succeeded within `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, probe: impl FnMut() -> Result<T, String>) -> T {
    within(limit, PAUSE, probe)
        .unwrap_or_else(|seen| panic!("waited {limit:?} for {what}; the last look: {seen}"))
}

/// Looks at `probe` every now and then until it succeeds.
///
/// # Errors
/// Its last error, when it has not succeeded within `limit`.
pub fn within<T>(
    limit: Duration,
    every: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let begin = Instant::now();
    loop {
        match probe() {
            Err(_) if begin.elapsed() < limit => thread::sleep(every),
            last => return last,
        }
    }
}

/// As [`until`], for a condition that is true or false.
///
/// # Panics
/// When it has not become true within `limit`.
#[track_caller]
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> bool) {
    until(what, limit, || {
        if probe() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    });
}

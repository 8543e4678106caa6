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
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if begin.elapsed() >= limit => {
                panic!("waited {limit:?} for {what}; the last look: {seen}")
            }
            Err(_) => thread::sleep(PAUSE),
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

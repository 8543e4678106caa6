//! The only reader of clock and entropy.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use gemmesh_protocol::time::{Instant, Span, WallTime};

static START: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// Monotonic time since this program first asked.
pub fn now() -> Instant {
    Instant(START.elapsed().as_micros() as u64)
}

/// When `instant` is, for a timer. An instant that has passed is now.
pub fn deadline(instant: Instant) -> tokio::time::Instant {
    let wait: Span = instant - now();
    tokio::time::Instant::now() + std::time::Duration::from_micros(wait.0)
}

/// Wall-clock time; the epoch when the clock is set before 1970.
pub fn wall() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime(since.as_millis() as u64)
}

/// Random bytes from the operating system.
///
/// # Panics
/// When the system has no entropy source: nothing that needs one may go on.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's entropy source");
    bytes
}

//! The only reader of clock and entropy, and the priority of threads.

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

/// How much nicer a thread that computes is than the rest of the program.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NICER: i32 = 5;

/// Lets others go first: the calling thread computes, and what feeds it (sockets, disk, the helpers'
/// verdicts) and the person at this device must not wait for its turn to end. On a machine with
/// nothing else to do it costs nothing. Where a thread has no priority of its own, nothing happens.
pub fn yield_to_others() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{getpriority_process, setpriority_process};
        // Linux keeps a priority for each thread, whatever POSIX says: setpriority(2), under
        // "C library/kernel differences".
        let thread = Some(rustix::thread::gettid());
        if let Ok(now) = getpriority_process(thread) {
            // Not being allowed to is no reason not to compute.
            let _ = setpriority_process(thread, now + NICER);
        }
    }
}

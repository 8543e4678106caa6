//! Memory as NumPy takes it: in huge pages where the system has them, so that no contender spends more time
//! than another on finding its pages.

use rustix::mm::{Advice, madvise};

/// From this size on NumPy asks for huge pages.
const LARGE: usize = 4 << 20;
const HUGE_PAGE: usize = 2 << 20;

/// `len` elements.
pub fn filled<T>(len: usize, element: impl Fn(usize) -> T) -> Vec<T> {
    let mut all: Vec<T> = Vec::with_capacity(len);
    let bytes = len * size_of::<T>();
    if bytes >= LARGE {
        let start = all.as_mut_ptr().cast::<u8>();
        let skip = start.align_offset(HUGE_PAGE);
        let whole = bytes.saturating_sub(skip) / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: the range lies in the allocation; the advice does not change what is in it. Where it is
        // refused, pages stay small.
        let _ = unsafe { madvise(start.add(skip).cast(), whole, Advice::LinuxHugepage) };
    }
    all.extend((0..len).map(element));
    all
}

//! How much the system's allocator keeps of what was given back to it.

/// From now on the allocator gives large pieces (of 128 KiB and more) back to the system at once, so that what
/// the process has resident is what it uses. Each such piece costs a call of the system and its pages anew,
/// which is not worth it where memory is plenty. Only glibc needs to be told: it keeps several times what a
/// program of many threads uses. Elsewhere nothing happens.
pub fn give_back_at_once() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use core::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(param: c_int, value: c_int) -> c_int;
        }
        /// From `malloc.h`.
        const M_MMAP_THRESHOLD: c_int = -3;
        const M_ARENA_MAX: c_int = -8;
        // SAFETY: both parameters exist since glibc 2.10, and mallopt may be called at any time.
        unsafe {
            mallopt(M_MMAP_THRESHOLD, 128 << 10);
            mallopt(M_ARENA_MAX, 2);
        }
    }
}

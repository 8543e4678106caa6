//! Plain loops, compiled for the widest vectors that the CPU may have and chosen at run time.
//!
//! For arithmetic that a compiler vectorises well: conversions, reductions, sums. No loop here may be
//! reordered by the compiler (Rust never contracts or reassociates), so all versions give the same bits.

/// What [`widest`] distinguishes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) enum Level {
    Avx512,
    Avx2,
    Baseline,
}

/// The widest level of this CPU.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn level() -> Level {
    macro_rules! has {
        ($($feature:tt),*) => {{
            #[cfg(feature = "std")]
            let found = $(std::is_x86_feature_detected!($feature))&&*;
            #[cfg(not(feature = "std"))]
            let found = $(cfg!(target_feature = $feature))&&*;
            found
        }};
    }
    if has!("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma") {
        Level::Avx512
    } else if has!("avx2", "fma") {
        Level::Avx2
    } else {
        Level::Baseline
    }
}

/// Defines a function whose body is compiled once for each level.
macro_rules! widest {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$attribute])*
        $vis fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn plain($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    plain($($arg),*)
                }

                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    plain($($arg),*)
                }

                match $crate::arch::level() {
                    // SAFETY: this CPU has the features; the body is safe code.
                    $crate::arch::Level::Avx512 => unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::arch::Level::Avx2 => unsafe { avx2($($arg),*) },
                    $crate::arch::Level::Baseline => plain($($arg),*),
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            plain($($arg),*)
        }
    };
}
pub(crate) use widest;

/// Asks for the cache line at `at`, which will be read soon. A hint: any address does, and there are CPUs
/// where it does nothing.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is a hint that never faults; every CPU of this architecture has it.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

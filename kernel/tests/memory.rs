//! A tile never holds more memory than its spec says. A test binary of its own, because it counts
//! what the whole process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::{Class, Element, Placement, TileProduct, TileSpec};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_tile_holds_no_more_memory_than_its_spec_says() {
    let int = |bits: u32, inner| {
        let limbs = bits.div_ceil(64) as u16;
        Element::Int {
            a_limbs: limbs,
            b_limbs: limbs,
            c_limbs: output_limbs(bits, bits, inner) as u16,
            a_bits: bits,
            b_bits: bits,
        }
    };
    for (rows, cols, inner) in [(1, 1, 1), (50, 70, 600), (300, 20, 300), (7, 90, 90)] {
        for element in [
            Element::F64,
            Element::F32,
            int(20, inner),
            int(63, inner),
            int(700, inner),
            int(7000, inner),
        ] {
            if element.bytes()[0] > 500 && rows > 7 {
                continue; // minutes in a debug build
            }
            let spec = TileSpec {
                element,
                class: Class::Any,
                rows,
                cols,
                inner,
            };
            for depth in [inner, inner.div_ceil(2)] {
                let [a_bytes, b_bytes, _] = element.bytes();
                let (a, b) = (
                    vec![0; rows * depth * a_bytes],
                    vec![0; depth * cols * b_bytes],
                );
                let before = HELD.load(Ordering::Relaxed);
                PEAK.store(before, Ordering::Relaxed);
                let mut tile = TileProduct::new(spec).unwrap();
                let mut done = 0;
                while done < inner {
                    let k = depth.min(inner - done);
                    tile.begin_slab(k).unwrap();
                    tile.put_a(&a[..rows * k * a_bytes], Placement::whole(rows, k, 0, 0))
                        .unwrap();
                    tile.put_b(&b[..k * cols * b_bytes], Placement::whole(k, cols, 0, 0))
                        .unwrap();
                    tile.accumulate().unwrap();
                    done += k;
                }
                let result = tile.finish().unwrap();
                assert!(result.iter().all(|&byte| byte == 0));
                let used = PEAK.load(Ordering::Relaxed) - before;
                let said = spec.memory_bytes(depth);
                println!("{spec:?} slabs of {depth}: {used} of {said}");
                assert!(
                    used <= said,
                    "{spec:?} with slabs of {depth}: {used} > {said}"
                );
            }
        }
    }
}

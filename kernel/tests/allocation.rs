//! Every allocation may be refused, and each refusal is a typed error. A test binary of its own, because
//! its allocator refuses on purpose.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gemmesh_kernel::exact::output_limbs;
use gemmesh_kernel::modular::{self, Scratch};
use gemmesh_kernel::verify::{Probe, RowCheck};
use gemmesh_kernel::{
    Class, Element, KernelError, MatMut, MatRef, Placement, TileProduct, TileSpec, Workspace,
    matmul,
};

thread_local! {
    /// Allocations of this thread until one is refused.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Refusing;

fn refused() -> bool {
    // Threads that end have no counter any more; they are not under test.
    LEFT.try_with(|left| match left.get() {
        usize::MAX => false,
        0 => true,
        n => {
            left.set(n - 1);
            false
        }
    })
    .unwrap_or(false)
}

// SAFETY: everything is passed on to the system's allocator, or refused with a null pointer.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if refused() {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Runs `work` with its first, second, … allocation refused until it needs no more of them, and returns
/// how many there were.
fn refuse_each(what: &str, mut work: impl FnMut() -> Result<(), KernelError>) -> usize {
    for allowed in 0..10_000 {
        LEFT.set(allowed);
        let result = work();
        LEFT.set(usize::MAX);
        match result {
            Ok(()) => return allowed,
            Err(KernelError::OutOfMemory { bytes }) => assert!(bytes > 0, "{what}, {allowed}"),
            Err(other) => panic!("{what}, allocation {allowed}: {other}"),
        }
    }
    panic!("{what} does not end");
}

#[test]
fn a_refused_allocation_is_an_error_and_c_stays() {
    let (a, b) = (vec![1.0; 30 * 40], vec![2.0; 40 * 50]);
    let mut c = vec![7.0; 30 * 50];
    let count = refuse_each("a floating product", || {
        assert!(c.iter().all(|&x| x == 7.0), "C is unchanged");
        matmul(
            Class::Any,
            false,
            MatRef::row_major(&a, 30, 40)?,
            MatRef::row_major(&b, 40, 50)?,
            MatMut::row_major(&mut c, 30, 50)?,
            &mut Workspace::new(),
        )
    });
    assert!(count > 0 && c.iter().all(|&x| x == 80.0));
}

#[test]
fn a_refused_allocation_of_a_tile_or_its_check_is_an_error() {
    let int = |bits: u32| {
        let limbs = (bits + 1).div_ceil(64) as u16;
        Element::Int {
            a_limbs: limbs,
            b_limbs: limbs,
            c_limbs: output_limbs(bits, bits, 9) as u16,
            a_bits: bits,
            b_bits: bits,
        }
    };
    for element in [Element::F64, Element::F32, int(20), int(63), int(500)] {
        let spec = TileSpec {
            element,
            class: Class::Any,
            rows: 5,
            cols: 7,
            inner: 9,
        };
        let [a_bytes, b_bytes, _] = element.bytes();
        let (a, b) = (vec![0; 5 * 9 * a_bytes], vec![0; 9 * 7 * b_bytes]);
        let mut c = Vec::new();
        let count = refuse_each("a tile", || {
            let mut tile = TileProduct::new(spec)?;
            tile.begin_slab(9)?;
            tile.put_a(&a, Placement::whole(5, 9, 0, 0))?;
            tile.put_b(&b, Placement::whole(9, 7, 0, 0))?;
            tile.accumulate()?;
            c = tile.finish()?;
            Ok(())
        });
        assert!(count > 3, "{element:?}: {count}");
        let count = refuse_each("a check", || {
            let mut probe = Probe::new(element, 9, 7, [1; 32])?;
            probe.project_b(&b, Placement::whole(9, 7, 0, 0))?;
            let mut check = RowCheck::new(&probe, 5)?;
            check.project_a(&a, Placement::whole(5, 9, 0, 0))?;
            check.verdict(&c).map(drop)
        });
        assert!(count > 2, "{element:?}: {count}");
    }
}

#[test]
fn a_refused_allocation_of_a_product_of_words_is_an_error() {
    for m in [1_048_573, 2_147_483_647, (1 << 61) - 1] {
        let (a, b) = (vec![m - 1; 6 * 8], vec![m - 2; 8 * 4]);
        let mut c = vec![0; 6 * 4];
        let count = refuse_each("a product of words", || {
            modular::matmul(
                m,
                false,
                // Columns, so that rows have to be copied.
                MatRef::new(&a, 6, 8, 1, 6)?,
                MatRef::row_major(&b, 8, 4)?,
                MatMut::row_major(&mut c, 6, 4)?,
                &mut Scratch::new(),
            )
        });
        assert!(count > 3, "{m}: {count}");
        assert!(c.iter().all(|&x| x == 16), "(−1)·(−2)·8 mod {m}");
    }
}

//! How fast is this device? The clock is the page's, so these functions only do the work and say
//! how many operations it was.

use gemmesh_kernel::{Class, Element, KernelError, Placement, TileProduct, TileSpec, peak};

/// A product of two full matrices of doubles or singles, to be timed as a tile is.
#[derive(Debug)]
pub struct Probe {
    tile: TileProduct,
    spec: TileSpec,
    block: Vec<u8>,
}

impl Probe {
    /// A product of two `edge` × `edge` matrices, in memory that is touched already.
    ///
    /// # Errors
    /// The kernel's, for want of memory.
    pub fn new(edge: usize, single: bool) -> Result<Self, KernelError> {
        let spec = TileSpec {
            element: if single { Element::F32 } else { Element::F64 },
            class: Class::Any,
            rows: edge,
            cols: edge,
            inner: edge,
        };
        // Ordinary numbers: neither zeros nor subnormals, which some processors treat specially.
        let mut block = Vec::new();
        for i in 0..edge * edge {
            let x = 1.0 + (i % 1_000) as f64 / 1_000.0;
            if single {
                block.extend_from_slice(&(x as f32).to_le_bytes());
            } else {
                block.extend_from_slice(&x.to_le_bytes());
            }
        }
        let mut probe = Self {
            tile: TileProduct::new(spec)?,
            spec,
            block,
        };
        probe.fill()?;
        probe.tile.accumulate()?;
        Ok(probe)
    }

    /// Everything before the call that is timed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn fill(&mut self) -> Result<(), KernelError> {
        let edge = self.spec.rows;
        let all = Placement::whole(edge, edge, 0, 0);
        self.tile.reset(self.spec)?;
        self.tile.begin_slab(edge)?;
        self.tile.put_a(&self.block, all)?;
        self.tile.put_b(&self.block, all)
    }

    /// The call that is timed: returns its 2·edge³ operations.
    ///
    /// # Errors
    /// The kernel's.
    pub fn run(&mut self) -> Result<u64, KernelError> {
        self.tile.accumulate()?;
        Ok(self.spec.operations())
    }
}

/// Multiply-adds of doubles or singles in registers: the limit of one thread. Returns the operations
/// done.
pub fn limit(iterations: u64, single: bool) -> u64 {
    if single {
        peak::multiply_adds::<f32>(iterations)
    } else {
        peak::multiply_adds::<f64>(iterations)
    }
}

//! Arithmetic of gemmesh: blocked matrix products that have the same bits on every device,
//! exact products of integers of any size, and checks of products that somebody else computed.
//!
//! The same crate runs in the native node and, compiled to WebAssembly, in a browser's workers.
//! It is `no_std` + `alloc`; feature `std` only adds CPU detection on x86-64 and a setting of the allocator.
//!
//! | module | holds |
//! |---|---|
//! | [`matrix`] | views with strides, the error type |
//! | [`gemm`] | `C = A·B`, `C += A·B` in `f64` and `f32`: classes, micro-kernels, the five loops |
//! | [`field`] | products modulo one prime, on residues in `f64` |
//! | [`modular`] | products of words modulo any number |
//! | [`exact`] | products of integers of any size |
//! | [`coding`] | shares of matrices for devices that must not learn them |
//! | [`tile`] | one tile of a job: bytes in, bytes out |
//! | [`verify`] | is this product right? with a secret random vector |
//! | [`naive`] | the oracle: three loops |
//! | [`peak`] | the device's limit: multiply-adds in registers |
//! | `allocator` | what the system's allocator keeps (with `std`): here because it takes `unsafe` |
//!
//! ```
//! use gemmesh_kernel::{Class, MatMut, MatRef, Workspace, matmul};
//!
//! let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let b = [7.0, 8.0, 9.0, 10.0, 11.0, 12.0];
//! let mut c = [0.0; 4];
//! matmul(
//!     Class::Separate,
//!     false,
//!     MatRef::row_major(&a, 2, 3)?,
//!     MatRef::row_major(&b, 3, 2)?,
//!     MatMut::row_major(&mut c, 2, 2)?,
//!     &mut Workspace::new(),
//! )?;
//! assert_eq!(c, [58.0, 64.0, 139.0, 154.0]);
//! # Ok::<(), gemmesh_kernel::KernelError>(())
//! ```
//!
//! # The floating-point contract
//!
//! For every element of C and for the classes [`Class::Fused`] and [`Class::Separate`] the result is
//! one chain over ascending `k`:
//!
//! ```text
//! c = 0                      (or the stored element, when accumulating)
//! for k in 0..inner: c = round(a[i,k]·b[k,j] + c)            Fused: one rounding
//!                    c = round(round(a[i,k]·b[k,j]) + c)     Separate: two roundings
//! ```
//!
//! Vector lanes run across i and j only, and a block over k continues the chain from the stored C.
//! So neither lane width nor block sizes, slabs or tiles can change a bit (the payload and sign of a
//! NaN excepted; [`tile::TileProduct`] writes one canonical NaN).
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "std")]
pub mod allocator;
mod arch;
pub mod coding;
pub mod exact;
pub mod field;
pub mod gemm;
mod integer;
pub mod matrix;
mod microkernel;
pub mod modular;
pub mod naive;
mod pack;
mod pairs;
pub mod peak;
mod random;
mod scalar;
mod thin;
pub mod tile;
pub mod verify;
mod workspace;

pub use gemm::{Class, Scalar, Workspace, matmul, supports};
pub use matrix::{KernelError, MatMut, MatRef};
pub use peak::instance;
pub use tile::{Element, Placement, Stack, TileProduct, TileSpec};

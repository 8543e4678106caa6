//! The native program of gemmesh: sockets, disk, clock, threads and terminal around the
//! `gemmesh-protocol` engine and the `gemmesh-kernel` arithmetic.

pub mod config;
pub mod error;
pub mod files;
pub mod net;
pub mod store;

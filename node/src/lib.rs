//! The native program of gemmesh: sockets, disk, clock, threads and terminal around the
//! `gemmesh-protocol` engine and the `gemmesh-kernel` arithmetic.

pub mod app;
pub mod batch;
pub mod cli;
pub mod compute;
pub mod config;
mod driver;
pub mod error;
pub mod files;
mod guarded;
pub mod identity;
mod link;
pub mod memory;
mod metrics;
pub mod needs;
pub mod net;
pub mod os;
pub mod present;
pub mod serve;
pub mod store;
mod submit;
pub mod tls;
mod verify;

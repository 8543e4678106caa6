//! Messages and state machines of a gemmesh mesh.
//!
//! Nothing here opens a socket, reads a clock, draws entropy, starts a thread or touches a disk:
//! time and randomness are arguments, effects are data. [`engine::Engine`] composes the machines;
//! the node's event loop and the tests drive it through the same four calls.

pub mod batch;
mod bounded;
mod cache;
pub mod codec;
pub mod coded;
pub mod engine;
pub mod forecast;
mod holdings;
pub mod id;
pub mod io;
pub mod job;
pub mod matrix;
mod membership;
pub mod message;
pub mod page;
pub mod plan;
pub mod prng;
mod progress;
mod remote;
pub mod replication;
mod scheduler;
mod share;
pub mod slab;
mod speeds;
pub mod stack;
pub mod status;
pub mod tile;
pub mod time;
mod timer;
mod worker;

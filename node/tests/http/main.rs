//! The HTTP side of real nodes on loopback: the contract, the doors that stay shut, two nodes that
//! answer for each other.

mod contract;
mod doors;
mod holders;
mod node;

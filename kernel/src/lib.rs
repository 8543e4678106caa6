#![cfg_attr(not(feature = "std"), no_std)]
//! Arithmetic of gemmesh.
extern crate alloc;

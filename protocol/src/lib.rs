//! gemmesh.

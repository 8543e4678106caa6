//! What devices were sent of each matrix: what they hold need not be sent again.
//!
//! A guess: a device with a small cache may have dropped it. Only plans use it.

use std::collections::BTreeMap;

use crate::id::{DeviceId, MatrixId};

/// Pairs of device and matrix remembered.
const ENTRIES_MAX: usize = 4_096;

/// The books of a node.
#[derive(Debug, Default)]
pub struct Holdings {
    sent: BTreeMap<(DeviceId, MatrixId), u64>,
}

impl Holdings {
    /// Blocks of a matrix were sent to a device.
    pub fn sent(&mut self, device: DeviceId, matrix: MatrixId, bytes: u64) {
        let key = (device, matrix);
        if self.sent.len() >= ENTRIES_MAX && !self.sent.contains_key(&key) {
            self.sent.pop_first();
        }
        let sum = self.sent.entry(key).or_default();
        *sum = sum.saturating_add(bytes);
    }

    /// Which part of a matrix of `bytes` bytes a device has, between 0 and 1.
    pub fn part(&self, device: DeviceId, matrix: MatrixId, bytes: u64) -> f64 {
        let sent = self.sent.get(&(device, matrix)).copied().unwrap_or(0);
        (sent as f64 / bytes.max(1) as f64).min(1.0)
    }

    /// A device is gone, and what it held with it.
    pub fn forget(&mut self, device: DeviceId) {
        self.sent.retain(|(holder, _), _| *holder != device);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_go_with_the_device() {
        let (device, matrix) = (DeviceId([1; 32]), MatrixId([2; 32]));
        let mut holdings = Holdings::default();
        holdings.sent(device, matrix, 30);
        holdings.sent(device, matrix, 20);
        assert_eq!(holdings.part(device, matrix, 100), 0.5);
        assert_eq!(holdings.part(device, matrix, 10), 1.0);
        assert_eq!(holdings.part(DeviceId([3; 32]), matrix, 100), 0.0);
        holdings.forget(device);
        assert_eq!(holdings.part(device, matrix, 100), 0.0);
    }
}

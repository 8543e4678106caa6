//! Who contributed what to a job: the figures in its status.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::DeviceId;
use crate::job::JobHeader;
use crate::message::{DeviceRecord, Work};
use crate::plan;
use crate::status::Contribution;
use crate::time::Span;

/// The books of one job.
#[derive(Debug, Default)]
pub struct Progress {
    parts: BTreeMap<DeviceId, Part>,
}

#[derive(Debug)]
struct Part {
    record: DeviceRecord,
    tiles: u64,
    grid_rows: BTreeSet<u64>,
    rows: u64,
    operations: u64,
    kernel: Span,
    transfer: Span,
    busy: Span,
}

impl Progress {
    /// Remembers how a device calls itself.
    pub fn know(&mut self, record: &DeviceRecord) {
        let part = self.parts.entry(record.device).or_insert_with(|| Part {
            record: record.clone(),
            tiles: 0,
            grid_rows: BTreeSet::new(),
            rows: 0,
            operations: 0,
            kernel: Span(0),
            transfer: Span(0),
            busy: Span(0),
        });
        if part.record != *record {
            part.record.clone_from(record);
        }
    }

    /// How a device calls itself.
    pub fn record(&self, device: DeviceId) -> Option<&DeviceRecord> {
        self.parts.get(&device).map(|part| &part.record)
    }

    /// Counts an accepted tile. `Work` came from the device: nothing may overflow.
    pub fn count(&mut self, header: &JobHeader, tile: u32, device: DeviceId, work: Work) {
        let Some(part) = self.parts.get_mut(&device) else {
            return;
        };
        if header.guard.is_some() && work.kernel == Span(0) {
            // It was put together from what others have computed, which is counted for them.
            return;
        }
        let rect = header.tiling.rect(u64::from(tile));
        part.tiles += 1;
        if part.grid_rows.insert(rect.row) {
            part.rows += rect.rows;
        }
        part.operations = part.operations.saturating_add(header.tile_operations(tile));
        part.kernel = Span(part.kernel.0.saturating_add(work.kernel.0));
        part.transfer = Span(part.transfer.0.saturating_add(work.transfer.0));
        // A running total: tiles may arrive in another order than they were computed.
        part.busy = part.busy.max(work.busy);
    }

    /// The contributions of all devices with at least one tile, most operations first.
    pub fn contributions(&self) -> Vec<Contribution> {
        let parts = self.parts.iter().filter(|(_, part)| part.tiles > 0);
        let contribution = |(&device, part): (&DeviceId, &Part)| Contribution {
            device,
            name: part.record.name.clone(),
            kind: part.record.kind,
            slots: part.record.slots,
            tiles: part.tiles,
            rows: part.rows,
            operations: part.operations,
            compute_ms: part.kernel.0 as f64 / 1e3,
            transfer_ms: part.transfer.0 as f64 / 1e3,
            mflops: mflops(part.operations, part.busy),
            user_agent: part.record.user_agent.clone(),
        };
        let mut contributions: Vec<Contribution> = parts.map(contribution).collect();
        contributions.sort_by_key(|part| std::cmp::Reverse(part.operations));
        contributions
    }

    /// [`plan::bytes_floor`] for the tiles so far.
    pub fn bytes_floor(&self, header: &JobHeader, coordinator: DeviceId) -> u64 {
        let total = header.operations() as f64;
        let remote = self.parts.iter().filter(|(id, _)| **id != coordinator);
        let shares: Vec<f64> = remote
            .map(|(_, part)| part.operations as f64 / total)
            .collect();
        plan::bytes_floor(header, &shares)
    }
}

/// Operations over time in 10^6 per second; operations per microsecond, that is.
pub fn mflops(operations: u64, busy: Span) -> f64 {
    operations as f64 / busy.0.max(1) as f64
}

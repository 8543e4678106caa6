//! What jobs are told of the speed of devices and links.

use super::*;
use crate::forecast::{Capacity, Shape, forecast};
use crate::job::Operand;
use crate::scheduler::{hindrance, is_able, is_short, mean_slot_speed, planned};
use crate::status::{Outlook, PLANNED_MAX, Planned};

/// What a product is, as far as speeds and bytes depend on it.
struct Subject {
    kind: Kind,
    /// A and B, with their bytes.
    operands: [(MatrixId, u64); 2],
}

impl Subject {
    fn of<P>(job: &Scheduler<P>) -> Self {
        let header = job.header();
        let operand = |operand| (job.operand(operand), header.manifest(operand).bytes());
        Self {
            kind: Kind::of(header),
            operands: [Operand::A, Operand::B].map(operand),
        }
    }
}

impl<P: Clone> Engine<P> {
    /// Tells a job what is known of everybody, before it starts.
    pub(super) fn brief(&self, job: &mut Scheduler<P>, now: Instant) {
        let subject = Subject::of(job);
        for record in self.workforce() {
            job.measure(record.device, self.measured(&record, &subject), now);
        }
    }

    /// Tells all jobs what is known of a device now.
    pub(super) fn measure(&mut self, device: DeviceId, now: Instant) {
        let Some(record) = self.membership.record_of(device).cloned() else {
            return;
        };
        self.measure_record(&record, now);
    }

    /// Tells all jobs what is known of a device that has just said something of itself.
    pub(super) fn measure_record(&mut self, record: &DeviceRecord, now: Instant) {
        let subjects = self.jobs.iter().map(|(id, job)| (*id, Subject::of(job)));
        let subjects: Vec<(JobId, Subject)> = subjects.collect();
        for (id, subject) in subjects {
            let measured = self.measured(record, &subject);
            self.with_job(id, |job| job.measure(record.device, measured, now));
        }
    }

    /// Blocks of a job's operand are sent to a device.
    pub(super) fn book_sent(&mut self, job: JobId, to: DeviceId, operand: Operand, blocks: &[u32]) {
        let Some(job) = self.jobs.get(&job) else {
            return;
        };
        let grid = job.header().manifest(operand).grid();
        let bytes = blocks.iter().map(|&block| grid.block_bytes(block.into()));
        self.holdings.sent(to, job.operand(operand), bytes.sum());
    }

    /// What is known of a device for products of this kind, whatever it holds.
    pub(super) fn measured_of(&self, record: &DeviceRecord, kind: Kind) -> Measured {
        let nothing = (MatrixId([0; 32]), 0);
        let operands = [nothing; 2];
        self.measured(record, &Subject { kind, operands })
    }

    fn measured(&self, record: &DeviceRecord, subject: &Subject) -> Measured {
        // A page without a link of its own is reached by way of its node.
        let direct = self.membership.link_of(record.device).is_some();
        let via = record.via.filter(|_| !direct);
        Measured {
            kernel: self.speeds.kernel(record, subject.kind),
            link: self.speeds.link(record.device, via),
            held: subject
                .operands
                .map(|(matrix, bytes)| self.holdings.part(record.device, matrix, bytes)),
        }
    }

    /// What would become of a job if it were submitted now: the plan that it would start with.
    pub fn outlook(&self, header: &JobHeader) -> Outlook {
        let me = self.me();
        let operand = |operand| {
            let manifest = header.manifest(operand);
            (manifest.id(), manifest.bytes())
        };
        let subject = Subject {
            kind: Kind::of(header),
            operands: [Operand::A, Operand::B].map(operand),
        };
        let mut able = self.workforce();
        able.retain(|record| is_able(record, header));
        let own = able.iter().find(|record| record.device == me);
        let alone = own.is_some_and(|own| is_short(header, own, &self.measured(own, &subject)));
        let mut left_out = Vec::new();
        able.retain(|record| {
            let limit = hindrance(record, header, alone && record.device != me);
            let planned = |limit| Planned::left_out(record.device, record.name.clone(), limit);
            left_out.extend(limit.map(planned));
            limit.is_none()
        });
        let known = able.iter().filter_map(|record| {
            let rate = self.measured(record, &subject).kernel?;
            Some((rate, record.slots))
        });
        let per_slot = mean_slot_speed(known);
        let capacity = |record: &DeviceRecord| {
            let measured = self.measured(record, &subject);
            let mean = per_slot * f64::from(record.slots);
            Capacity {
                device: record.device,
                rate: measured.kernel.unwrap_or(mean),
                slots: record.slots,
                load: 0,
                link: (record.device != me).then_some(measured.link),
                held: measured.held,
            }
        };
        let devices: Vec<Capacity> = able.iter().map(capacity).collect();
        let tiles = header.tiling.len();
        let plan = forecast(&Shape::of(header), tiles, &devices);
        let name = |device| {
            let record = self.membership.record_of(device);
            let own = (device == me).then(|| self.membership.record());
            own.or(record)
                .map_or_else(String::new, |record| record.name.clone())
        };
        let mut planned = planned(&plan, name);
        planned.extend(left_out);
        planned.truncate(PLANNED_MAX);
        let finite = |seconds: f64| seconds.is_finite().then_some(seconds);
        Outlook {
            rows: header.a.rows,
            inner: header.a.cols,
            cols: header.b.cols,
            dtype: header.element.dtype,
            tiles,
            tile_rows: header.tiling.tile_rows.min(header.a.rows),
            tile_cols: header.tiling.tile_cols.min(header.b.cols),
            predicted_seconds: finite(plan.seconds),
            alone_seconds: finite(plan.alone),
            bytes: plan.bytes() as u64,
            plan: planned,
            sharing: None,
        }
    }
}

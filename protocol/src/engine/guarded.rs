//! Guarded products: nobody but their coordinator may learn them. Their tiles come from shares, each of which is a
//! job of one device, and are put together from so many answers as the scheme needs.
//!
//! No device ever has two shares that were made with the same masks. That follows from two rules: a share is given
//! to a device that was given none of this product before, and after a restart, when nobody knows any
//! more who was given what, shares are made anew with other masks.
//!
//! A product has no backups and cannot be taken over. When too few devices are left for it to be put together,
//! its coordinator computes what is missing by itself.

use super::*;
use crate::coded::{self, Helper, Home, Product, Refusal, Wish};
use crate::forecast::Limit;
use crate::job::{Guard, KernelClass};
use crate::status::{Contribution, Happening, Mode, Outlook, PLANNED_MAX, Planned, Sharing};

/// A device that was given a share may be away so long before another one gets it.
const AWAY_MAX: Span = Span::from_millis(500);
/// Too few devices may be there so long before the coordinator goes on alone.
const SHORT_MAX: Span = Span::from_secs(5);
/// Multiply-adds of coding a second for each slot: encoding and decoding are bound by memory.
const CODING_RATE: f64 = 1.5e9;

/// A guarded product while it is shared.
#[derive(Debug)]
pub(super) struct Guarded {
    sharing: coded::Sharing,
    report: Sharing,
    /// The job of each share and the device that has it; empty while shares are made, and when they are of no use.
    shares: Vec<(JobId, DeviceId)>,
    /// Who was given a share.
    seen: BTreeSet<DeviceId>,
    /// Tiles of shares that are being put together, or were.
    decoding: BTreeSet<u32>,
    /// Since when a device is away that has not returned all of its share.
    away: Option<Instant>,
    /// Since then others were looked for.
    tried: bool,
    /// What was computed of shares that are gone.
    contributions: BTreeMap<DeviceId, Contribution>,
    bytes_sent: u64,
}

/// What is told of a job to others: which matrix a guarded product is, is nobody's business.
pub(super) fn for_others(mut status: JobStatus) -> JobStatus {
    if status.mode != Mode::Plain {
        status.result = None;
    }
    status
}

/// What devices that put together what they see learn.
fn reveals(guard: &Guard) -> String {
    match (guard.mode, guard.colluders) {
        (Mode::Masked, _) => {
            "one device learns nothing of A, B and C; two that put together what they see learn all of it".to_owned()
        }
        (_, 1) => "no device learns anything of A, B and C; two that put together what they see may learn all of it"
            .to_owned(),
        (_, t) => format!(
            "{t} devices that put together what they see learn nothing of A, B and C; {} may learn all of it",
            t + 1
        ),
    }
}

impl<P: Clone> Engine<P> {
    /// Whether a job is, or was, one that this node alone may coordinate.
    pub(super) fn is_guarded_here(&self, job: JobId) -> bool {
        let running = self.jobs.get(&job).map(Scheduler::header);
        let header = running.or_else(|| self.backups.get(&job).map(Backup::header));
        header.is_some_and(JobHeader::is_bound)
            || self
                .ended
                .get(&job)
                .is_some_and(|status| status.mode != Mode::Plain && status.coordinator == self.me())
    }

    /// How a job stands; of a guarded product, with what its shares have done.
    pub(super) fn status_of(&self, job: &Scheduler<P>, now: Instant) -> JobStatus {
        let mut status = job.status(now);
        let Some(guarded) = self.guarded.get(&status.job) else {
            return status;
        };
        let mut all = guarded.contributions.clone();
        for own in std::mem::take(&mut status.contributions) {
            add(&mut all, own);
        }
        status.bytes_sent += guarded.bytes_sent;
        for share in self.shares_of(guarded) {
            let share = share.status(now);
            status.bytes_sent += share.bytes_sent;
            status.plan.extend(share.plan);
            for contribution in share.contributions {
                add(&mut all, contribution);
            }
        }
        status.plan.truncate(PLANNED_MAX);
        status.contributions = all.into_values().collect();
        let operations = |part: &Contribution| std::cmp::Reverse(part.operations);
        status.contributions.sort_by_key(operations);
        status.sharing = Some(Box::new(guarded.report.clone()));
        status
    }

    fn shares_of<'a>(&'a self, guarded: &'a Guarded) -> impl Iterator<Item = &'a Scheduler<P>> {
        let jobs = guarded.shares.iter();
        jobs.filter_map(|(job, _)| self.jobs.get(job))
    }

    // -- planning --

    /// How a product would be shared with the devices that are there, and how long the coordinator alone would take.
    ///
    /// # Errors
    /// [`Refusal`]: too few devices.
    fn plan_shares(
        &self,
        header: &JobHeader,
        guard: &Guard,
    ) -> Result<(coded::Sharing, Option<f64>), Refusal> {
        let me = self.me();
        let kind = Kind::of_shares(guard.primes);
        let primes = f64::from(guard.primes);
        let helpers: Vec<Helper> = self
            .workforce()
            .iter()
            .filter(|record| record.device != me && self.can_take_shares(record))
            .map(|record| {
                let measured = self.measured_of(record, kind);
                let guess = f64::from(record.slots) * 1e9;
                Helper {
                    device: record.device,
                    rate: measured.kernel.unwrap_or(guess) * primes,
                    link: measured.link,
                }
            })
            .collect();
        let own = self.membership.record();
        let works = own.state != DeviceState::Paused && own.slots > 0;
        let rate = |kind| self.speeds.kernel(own, kind).filter(|_| works);
        let operations = header.operations() as f64;
        let alone = rate(Kind::of(header)).map(|rate| operations / rate);
        let product = Product {
            shape: [header.a.rows, header.a.cols, header.b.cols],
            primes: guard.primes.into(),
            word_bytes: 2.0,
        };
        let home = |rate| Home {
            rate,
            coding: CODING_RATE * f64::from(own.slots.max(1)),
        };
        let sharing = if guard.mode == Mode::Masked {
            coded::masked(&product, (me, home(rate(kind).unwrap_or(0.0))), &helpers)?
        } else {
            let wish = Wish {
                colluders: guard.colluders,
                spares: guard.spares,
            };
            // Who asks for shares gets shares: the coordinator computes nothing meanwhile.
            let choice = coded::choose(&product, wish, home(0.0), &helpers)?;
            choice.sharing.expect("the coordinator computes nothing")
        };
        Ok((sharing, alone))
    }

    /// What would become of a guarded product if it were submitted now.
    ///
    /// # Errors
    /// [`Refusal`]: too few devices.
    pub fn guarded_outlook(&self, header: &JobHeader) -> Result<Outlook, Refusal> {
        let guard = header.guard.as_deref().expect("a guarded product");
        let (sharing, alone) = self.plan_shares(header, guard)?;
        let tiling = &header.tiling;
        Ok(Outlook {
            rows: header.a.rows,
            inner: header.a.cols,
            cols: header.b.cols,
            dtype: header.element.dtype,
            tiles: tiling.len(),
            tile_rows: tiling.tile_rows.min(header.a.rows),
            tile_cols: tiling.tile_cols.min(header.b.cols),
            predicted_seconds: Some(sharing.seconds),
            alone_seconds: alone,
            bytes: (sharing.bytes[0] + sharing.bytes[1]) as u64,
            plan: self.planned_shares(&sharing, tiling.len()),
            sharing: Some(Box::new(report(header, guard, &sharing, alone))),
        })
    }

    /// A share for each device, for people.
    fn planned_shares(&self, sharing: &coded::Sharing, tiles: u64) -> Vec<Planned> {
        let [rows, _, cols] = sharing.scheme.cut().map(u64::from);
        let tiles = tiles.div_ceil(rows * cols);
        let bytes = (sharing.bytes[0] + sharing.bytes[1]) / f64::from(sharing.shares.max(1));
        let planned = |&device: &DeviceId| Planned {
            device,
            name: self.name_of(device),
            tiles,
            bytes: bytes as u64,
            seconds: sharing.seconds,
            limit: Limit::Kernel,
        };
        let devices = sharing.devices.iter().take(sharing.shares as usize);
        devices.take(PLANNED_MAX).map(planned).collect()
    }

    /// How a device is called.
    pub(super) fn name_of(&self, device: DeviceId) -> String {
        let own = (device == self.me()).then(|| self.membership.record());
        own.or_else(|| self.membership.record_of(device))
            .map_or_else(String::new, |record| record.name.clone())
    }

    /// Whether a device can be given a share.
    fn can_take_shares(&self, record: &DeviceRecord) -> bool {
        record.residues
            && record.slots > 0
            && record.classes.contains(&KernelClass::Exact)
            && matches!(record.state, DeviceState::Ready | DeviceState::Busy)
            && self.is_direct(record.device)
    }

    /// Whether a device is reached without a relay, which would see the device's share besides its own.
    pub(super) fn is_direct(&self, device: DeviceId) -> bool {
        let direct = self.membership.link_of(device);
        direct.is_some() && self.membership.route(device) == direct
    }

    // -- from a product to shares --

    /// Plans how a guarded product is shared, and has its shares made. Other jobs are left as they are.
    pub(super) fn share_out(&mut self, job: JobId, now: Instant) {
        let Some(scheduler) = self.jobs.get(&job) else {
            return;
        };
        let Some(guard) = scheduler.header().guard.as_deref().copied() else {
            return;
        };
        if scheduler.is_complete() {
            return;
        }
        let header = scheduler.header();
        let Ok((sharing, alone)) = self.plan_shares(header, &guard) else {
            // They were there when it was accepted.
            self.go_on_alone(job, now);
            return;
        };
        let report = report(header, &guard, &sharing, alone);
        self.outputs.push_back(Output::Encode {
            job,
            sharing: Box::new(sharing.clone()),
        });
        let seconds = sharing.seconds;
        let guarded = Guarded {
            sharing,
            report,
            shares: Vec::new(),
            seen: BTreeSet::new(),
            decoding: BTreeSet::new(),
            away: None,
            tried: false,
            contributions: BTreeMap::new(),
            bytes_sent: 0,
        };
        self.guarded.insert(job, guarded);
        self.with_job(job, |job| job.run(seconds, now));
    }

    /// Shares were made: each is given to its device.
    pub(super) fn handle_encoded(
        &mut self,
        job: JobId,
        shares: Vec<Taken>,
        seconds: f64,
        now: Instant,
    ) {
        let wanted = |guarded: &Guarded| {
            guarded.shares.is_empty()
                && !guarded.report.alone
                && guarded.sharing.shares as usize == shares.len()
        };
        if !self.jobs.contains_key(&job) || !self.guarded.get(&job).is_some_and(wanted) {
            // It has ended, or goes on alone.
            for share in shares {
                self.drop_share(share.header.job);
            }
            return;
        }
        let guarded = self.guarded.get_mut(&job).expect("just looked at");
        guarded.report.encode_seconds = seconds;
        let devices: Vec<DeviceId> = guarded.sharing.devices.clone();
        guarded.seen.extend(devices.iter().take(shares.len()));
        for (taken, device) in shares.into_iter().zip(devices) {
            let id = taken.header.job;
            self.take_share(taken, device, now);
            let guarded = self.guarded.get_mut(&job).expect("just looked at");
            guarded.shares.push((id, device));
        }
        self.with_job(job, Scheduler::nudge);
    }

    fn take_share(&mut self, taken: Taken, device: DeviceId, now: Instant) {
        let id = taken.header.job;
        let first_lease = self.prng.next_u64() >> 1;
        let own = self.membership.record().clone();
        let mut job = Scheduler::new(&own, taken, first_lease, 0, now);
        job.bind(device, now);
        self.worker.handle_own_header(job.header(), now);
        self.brief(&mut job, now);
        let mut workers = self.workforce();
        let me = own.device;
        workers.retain(|record| record.device == me || self.is_direct(record.device));
        job.start(workers, now);
        self.jobs.insert(id, job);
    }

    // -- from answers to the product --

    /// A tile is durable: if it is one of a share, perhaps there are enough answers now.
    pub(super) fn put_together(&mut self, job: JobId, tile: u32) {
        let Some(scheduler) = self.jobs.get(&job).filter(|job| job.has_tile(tile)) else {
            return;
        };
        let Some(share) = scheduler.header().share else {
            return;
        };
        let Some(guarded) = self.guarded.get_mut(&share.product) else {
            return;
        };
        let has = |id: &JobId| self.jobs.get(id).is_some_and(|job| job.has_tile(tile));
        let answers: Vec<(u16, JobId)> = (0..)
            .zip(&guarded.shares)
            .filter(|(_, (id, _))| has(id))
            .map(|(number, (id, _))| (number, *id))
            .take(guarded.sharing.answers as usize)
            .collect();
        if answers.len() < guarded.sharing.answers as usize || !guarded.decoding.insert(tile) {
            return;
        }
        self.outputs.push_back(Output::Decode {
            job: share.product,
            tile,
            answers,
        });
    }

    /// Tiles of the product.
    pub(super) fn handle_decoded(
        &mut self,
        job: JobId,
        _tile: u32,
        tiles: Vec<(u32, P, u64)>,
        seconds: f64,
        now: Instant,
    ) {
        if let Some(guarded) = self.guarded.get_mut(&job) {
            guarded.report.decode_seconds += seconds;
        }
        self.with_job(job, |job| {
            for (tile, payload, bytes) in tiles {
                job.deliver(tile, payload, bytes);
            }
        });
        self.drain_job(job, now);
    }

    // -- devices come and go --

    /// Gives shares of devices that stay away to others; without others, the coordinator goes on alone.
    pub(super) fn watch_guarded(&mut self, now: Instant) {
        let shared = self.guarded.iter();
        let shared = shared.filter(|(_, guarded)| !guarded.shares.is_empty());
        let ids: Vec<JobId> = shared.map(|(id, _)| *id).collect();
        for id in ids {
            let guarded = &self.guarded[&id];
            let of_use = |(job, _): &&(JobId, DeviceId)| {
                let job = self.jobs.get(job);
                job.is_some_and(|job| job.is_complete() || job.has_worker())
            };
            let there = guarded.shares.iter().filter(of_use).count();
            let enough = there >= guarded.sharing.answers as usize;
            let guarded = self.guarded.get_mut(&id).expect("just looked at");
            if enough {
                (guarded.away, guarded.tried) = (None, false);
                continue;
            }
            let since = *guarded.away.get_or_insert(now);
            if now >= since + AWAY_MAX {
                guarded.tried = true;
                self.replace_devices(id, now);
            }
            if now >= since + SHORT_MAX {
                self.go_on_alone(id, now);
            }
        }
    }

    pub(super) fn guarded_timeout(&self) -> Option<Instant> {
        let next = |guarded: &Guarded| {
            let since = guarded.away?;
            let tried = guarded.tried;
            Some(since + if tried { SHORT_MAX } else { AWAY_MAX })
        };
        self.guarded.values().filter_map(next).min()
    }

    /// Gives each share that nobody works on to a device that was given none of this product.
    fn replace_devices(&mut self, product: JobId, now: Instant) {
        let me = self.me();
        let guarded = &self.guarded[&product];
        let mut free: Vec<DeviceRecord> = self.workforce();
        free.retain(|record| {
            let new = !guarded.seen.contains(&record.device);
            record.device != me && new && self.can_take_shares(record)
        });
        let idle = |(_, (job, _)): &(usize, &(JobId, DeviceId))| {
            let job = self.jobs.get(job);
            job.is_some_and(|job| !job.is_complete() && !job.has_worker())
        };
        let shares = guarded.shares.iter().enumerate().filter(idle);
        let idle: Vec<(usize, JobId)> = shares.map(|(number, (job, _))| (number, *job)).collect();
        for ((number, job), record) in idle.into_iter().zip(free) {
            let device = record.device;
            let guarded = self.guarded.get_mut(&product).expect("looked at above");
            let before = std::mem::replace(&mut guarded.shares[number].1, device);
            guarded.seen.insert(device);
            self.with_job(job, |job| {
                job.bind(device, now);
                job.join(record, now);
            });
            let name = self.name_of(before);
            self.with_job(product, |product| {
                product.happened(Happening::Reassigned, before, &name, now);
            });
        }
    }

    /// Computes what is missing of a guarded product here.
    fn go_on_alone(&mut self, product: JobId, now: Instant) {
        self.end_shares(product, now);
        if let Some(guarded) = self.guarded.get_mut(&product) {
            guarded.report.alone = true;
            guarded.away = None;
        }
        let own = self.membership.record().clone();
        self.with_job(product, |product| {
            product.bind(own.device, now);
            product.join(own, now);
        });
    }

    // -- the end --

    /// Ends all shares of a product; what they have done stays in its books.
    pub(super) fn end_shares(&mut self, product: JobId, now: Instant) {
        let Some(guarded) = self.guarded.get_mut(&product) else {
            return;
        };
        for (job, _) in std::mem::take(&mut guarded.shares) {
            let Some(share) = self.jobs.get_mut(&job) else {
                continue;
            };
            share.cancel(now);
            let status = share.status(now);
            let guarded = self.guarded.get_mut(&product).expect("looked at above");
            guarded.bytes_sent += status.bytes_sent;
            for contribution in status.contributions {
                add(&mut guarded.contributions, contribution);
            }
            self.drain_job(job, now);
        }
    }

    /// Forgets a share, its factors and its answers.
    pub(super) fn drop_share(&mut self, job: JobId) {
        self.forgotten.insert(job);
        self.outputs.push_back(Output::Drop {
            job,
            for_good: false,
        });
    }
}

/// What is told of a plan.
fn report(
    header: &JobHeader,
    guard: &Guard,
    sharing: &coded::Sharing,
    alone: Option<f64>,
) -> Sharing {
    let c = header.a.rows * header.b.cols * header.element.bytes();
    let plain = header.a.bytes() + header.b.bytes() + c;
    Sharing {
        scheme: sharing.scheme.to_string(),
        colluders: guard.colluders,
        spares: guard.spares,
        shares: sharing.shares,
        answers: sharing.answers,
        primes: guard.primes.into(),
        bits_kept: (guard.bits_kept > 0).then_some(guard.bits_kept.into()),
        compute_factor: sharing.compute,
        traffic_factor: (sharing.bytes[0] + sharing.bytes[1]) / plain as f64,
        encode_seconds: 0.0,
        decode_seconds: 0.0,
        alone_seconds: alone,
        alone: false,
        reveals: reveals(guard),
    }
}

/// Adds what a device has done.
fn add(all: &mut BTreeMap<DeviceId, Contribution>, one: Contribution) {
    let Some(sum) = all.get_mut(&one.device) else {
        all.insert(one.device, one);
        return;
    };
    let busy = |part: &Contribution| match part.mflops > 0.0 {
        true => part.operations as f64 / part.mflops,
        false => 0.0,
    };
    let time = busy(sum) + busy(&one);
    sum.tiles += one.tiles;
    sum.rows += one.rows;
    sum.operations = sum.operations.saturating_add(one.operations);
    sum.compute_ms += one.compute_ms;
    sum.transfer_ms += one.transfer_ms;
    sum.mflops = if time > 0.0 {
        sum.operations as f64 / time
    } else {
        0.0
    };
}

//! Who coordinates a job, who could continue it, and what happened to it, in plain words.

use std::collections::BTreeMap;

use gemmesh_protocol::id::DeviceId;
use gemmesh_protocol::status::{DeviceEntry, Happening, JobStatus, Moment};

use super::text;

/// The longest name that is shown.
const NAME_MAX: usize = 32;

/// What devices are called, as far as the mesh or the job itself says.
pub struct Names(BTreeMap<DeviceId, String>);

impl Names {
    pub fn new(job: &JobStatus, devices: &[DeviceEntry]) -> Self {
        let told = job.timeline.iter().map(|m| (m.device, &m.name));
        let parts = job
            .contributions
            .iter()
            .map(|part| (part.device, &part.name));
        let live = devices.iter().map(|entry| (entry.device, &entry.name));
        let all = told.chain(parts).chain(live);
        Self(all.map(|(device, name)| (device, shown(name))).collect())
    }

    /// `kitchen (0123abcd)`.
    fn of(&self, device: DeviceId) -> String {
        match self.0.get(&device).filter(|name| !name.is_empty()) {
            Some(name) => format!("{name} ({})", device.short()),
            None => device.short(),
        }
    }
}

fn shown(name: &str) -> String {
    text::shortened(&text::clean(name), NAME_MAX)
}

/// The lines about a job's coordinator and its backups.
pub fn standing(job: &JobStatus, names: &Names) -> String {
    let mut lines = format!("run by     {}", names.of(job.coordinator));
    if job.epoch > 1 {
        lines.push_str(&format!(
            ", after {}",
            text::count(job.epoch - 1, "takeover")
        ));
    }
    lines.push_str(&format!(" (epoch {})\n", job.epoch));
    let copies = match job.safe_copies {
        0 => "no other node could continue it".to_owned(),
        1 => "1 other node could continue it".to_owned(),
        copies => format!("{copies} other nodes could continue it"),
    };
    let ended = match job.safe_copies {
        0 => "no other node has what it left".to_owned(),
        1 => "1 other node has what it left".to_owned(),
        copies => format!("{copies} other nodes have what it left"),
    };
    let copies = if job.state.has_ended() { ended } else { copies };
    lines.push_str(&format!(
        "safe       {} of {} tiles; {copies}\n",
        text::grouped(job.tiles_safe),
        text::grouped(job.tiles_total)
    ));
    if !job.backups.is_empty() {
        let backups: Vec<String> = job.backups.iter().map(|id| names.of(*id)).collect();
        lines.push_str(&format!("backups    {}\n", backups.join(", ")));
    }
    lines
}

/// What happened, one line each, oldest first.
pub fn story(timeline: &[Moment]) -> String {
    let times: Vec<String> = timeline.iter().map(|m| text::seconds(m.at)).collect();
    let width = times.iter().map(|time| time.chars().count()).max();
    let width = width.unwrap_or_default();
    let lines = timeline.iter().zip(times);
    lines
        .map(|(moment, time)| format!("{time:>width$}  {}\n", event(moment)))
        .collect()
}

fn event(moment: &Moment) -> String {
    let name = match shown(&moment.name) {
        name if name.is_empty() => moment.device.short(),
        name => name,
    };
    let tile = moment
        .tile
        .map_or_else(|| "a tile".to_owned(), |tile| format!("tile {tile}"));
    match moment.event {
        Happening::Taken => format!("{name} took the job"),
        Happening::Joined => format!("{name} began to work for it"),
        Happening::Left => format!("{name} went away"),
        Happening::TookOver => format!("{name} took over (epoch {})", moment.epoch),
        Happening::BackedUp => format!("{name} became a backup"),
        Happening::Reassigned => format!("{tile} was given to another device than {name}"),
        Happening::Quarantined => format!("{name} returned a wrong result for {tile}"),
        Happening::Ended => format!("it ended; {name} ran it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_is_told_in_plain_words() {
        let moment = |at, event, tile| Moment {
            at,
            event,
            device: DeviceId([0x12; 32]),
            name: "kitchen\u{1b}[31m".to_owned(),
            tile,
            epoch: 2,
        };
        let told = story(&[
            moment(0.0, Happening::Taken, None),
            moment(2.25, Happening::TookOver, None),
            moment(3_723.0, Happening::Reassigned, Some(7)),
        ]);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines[0].ends_with("  kitchen[31m took the job"), "{told}");
        assert!(
            lines[1].ends_with("  kitchen[31m took over (epoch 2)"),
            "{told}"
        );
        assert!(lines[2].contains("tile 7 was given to another device than kitchen"));
        assert_eq!(lines[0].find("kitchen"), lines[2].find("tile"), "{told}");
    }
}

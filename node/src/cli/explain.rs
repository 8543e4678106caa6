//! `gemmesh multiply --explain`: the plan in words.

use gemmesh_protocol::forecast::Limit;
use gemmesh_protocol::status::{JobStatus, Outlook, Planned, Sharing};

use super::error::CliError;
use super::table::{Align, Table};
use super::{output, text};
use crate::needs::Explained;

/// Longer names are cut.
const NAME_MAX: usize = 24;

/// Prints the plan, as JSON if that is wanted.
///
/// # Errors
/// Standard output can not be written.
pub fn print(explained: &Explained, json: bool) -> Result<(), CliError> {
    if json {
        let value = serde_json::to_value(explained).expect("a plan has a JSON form");
        return output::json(&value);
    }
    let outlook = &explained.outlook;
    let mut text = summary(outlook);
    text.push_str(&format!(
        "needs {} of disk, and {} of memory for each tile\n",
        text::bytes(explained.needs.disk_bytes),
        text::bytes(explained.needs.memory_bytes)
    ));
    if let Some(shared) = &outlook.sharing {
        text.push_str(&sharing(shared));
    }
    text.push_str(&table(outlook).render(2, output::columns()));
    output::print(&text)
}

/// What was predicted of a job, and who was left out of it, as lines of `gemmesh job`.
pub fn forecast(job: &JobStatus) -> String {
    let Some(seconds) = job.predicted_seconds else {
        return String::new();
    };
    let mut text = format!("predicted  {}\n", text::seconds(seconds));
    let helped = |part: &Planned| job.contributions.iter().any(|c| c.device == part.device);
    for part in job
        .plan
        .iter()
        .filter(|part| part.tiles == 0 && !helped(part))
    {
        let name = text::shortened(&text::clean(&part.name), NAME_MAX);
        text.push_str(&format!(
            "left out   {name}: {}\n",
            left_out(part, Some(seconds))
        ));
    }
    text
}

/// How a guarded product is shared, what that costs, and who learns what; in whole lines.
pub fn sharing(sharing: &Sharing) -> String {
    let Sharing {
        scheme,
        shares,
        answers,
        primes,
        ..
    } = sharing;
    let mut text = format!(
        "shared     {}, {} of which {answers} are needed, modulo {}\n",
        text::clean(scheme),
        text::count((*shares).into(), "share"),
        text::count((*primes).into(), "prime"),
    );
    text.push_str(&format!(
        "costs      {:.2}× the operations and {:.2}× the bytes of A, B and C",
        sharing.compute_factor, sharing.traffic_factor
    ));
    if sharing.encode_seconds > 0.0 {
        text.push_str(&format!(
            "; this node spent {} on shares and {} on answers",
            text::seconds(sharing.encode_seconds),
            text::seconds(sharing.decode_seconds)
        ));
    }
    text.push('\n');
    if let Some(bits) = sharing.bits_kept {
        text.push_str(&format!(
            "precision  {bits} bits of each number, next to the largest of its row of A or column of B\n"
        ));
    }
    text.push_str(&format!("protects   {}\n", text::clean(&sharing.reveals)));
    if sharing.alone {
        text.push_str("alone      too few devices were left, so the coordinator computed the rest by itself\n");
    }
    text
}

fn summary(outlook: &Outlook) -> String {
    let Outlook {
        rows, inner, cols, ..
    } = outlook;
    let helpers = outlook.plan.iter().filter(|p| p.tiles > 0).count() as u64;
    let mut text = format!(
        "{rows}×{inner} · {inner}×{cols} {}, {} of {}×{}\n",
        outlook.dtype.name(),
        text::count(outlook.tiles, "tile"),
        outlook.tile_rows,
        outlook.tile_cols,
    );
    let Some(seconds) = outlook.predicted_seconds else {
        return text + "no device can compute it now\n";
    };
    text.push_str(&format!(
        "about {} on {}, {} over the network",
        text::seconds(seconds),
        text::count(helpers, "device"),
        text::bytes(outlook.bytes)
    ));
    if let Some(alone) = outlook.alone_seconds.filter(|_| helpers > 1) {
        let alone = text::seconds(alone);
        text.push_str(&format!("; {alone} on this node alone"));
    }
    text + "\n"
}

fn table(outlook: &Outlook) -> Table {
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("TILES", Align::Right),
        ("SHARE", Align::Right),
        ("BYTES", Align::Right),
        ("TIME", Align::Right),
        ("WHY", Align::Left),
    ])
    .optional(&["BYTES"]);
    for part in &outlook.plan {
        let name = text::shortened(&text::clean(&part.name), NAME_MAX);
        let share = 100.0 * part.tiles as f64 / outlook.tiles.max(1) as f64;
        let blank = || "–".to_owned();
        let helps = part.tiles > 0;
        table.row(vec![
            format!("{name} ({})", part.device.short()),
            text::grouped(part.tiles),
            if helps {
                format!("{share:.0} %")
            } else {
                blank()
            },
            if helps {
                text::bytes(part.bytes)
            } else {
                blank()
            },
            if helps {
                text::seconds(part.seconds)
            } else {
                blank()
            },
            why(part, outlook),
        ]);
    }
    table
}

/// What limits a device, or why it is left out.
fn why(part: &Planned, outlook: &Outlook) -> String {
    match (part.tiles > 0, part.limit) {
        (true, Limit::Kernel) => "computing takes longest".to_owned(),
        (true, Limit::Link) => "its link takes longest".to_owned(),
        (true, Limit::Memory | Limit::Start) => String::new(),
        (false, _) => format!("left out: {}", left_out(part, outlook.predicted_seconds)),
    }
}

/// Why a device gets no tile of a job that takes `whole` seconds.
fn left_out(part: &Planned, whole: Option<f64>) -> String {
    let one = text::seconds(part.seconds);
    match part.limit {
        Limit::Memory => "its memory has no room for one tile".to_owned(),
        Limit::Start => "the job is done before it has heard of it".to_owned(),
        _ if whole.is_some_and(|whole| part.seconds <= whole) => {
            "it would spare too little".to_owned()
        }
        Limit::Link => format!("its link needs {one} for one tile"),
        Limit::Kernel => format!("it needs {one} for one tile"),
    }
}

#[cfg(test)]
mod tests {
    use gemmesh_protocol::id::DeviceId;
    use gemmesh_protocol::matrix::Dtype;

    use super::*;

    #[test]
    fn a_plan_says_who_helps_and_who_does_not_and_why() {
        let part = |id, name: &str, tiles, seconds, limit| Planned {
            device: DeviceId([id; 32]),
            name: name.to_owned(),
            tiles,
            bytes: 250_000_000 * u64::from(id == 2),
            seconds,
            limit,
        };
        let outlook = Outlook {
            rows: 4_096,
            inner: 4_096,
            cols: 4_096,
            dtype: Dtype::F64,
            tiles: 16,
            tile_rows: 1_024,
            tile_cols: 1_024,
            predicted_seconds: Some(1.5),
            alone_seconds: Some(2.7),
            bytes: 250_000_000,
            sharing: None,
            plan: vec![
                part(1, "desk", 8, 1.5, Limit::Kernel),
                part(2, "blue", 8, 1.4, Limit::Link),
                part(3, "phone", 0, 13.0, Limit::Link),
                part(4, "clock", 0, 40.0, Limit::Kernel),
                part(5, "twin", 0, 0.9, Limit::Kernel),
                part(6, "watch", 0, 0.0, Limit::Memory),
                part(7, "late", 0, 0.0, Limit::Start),
            ],
        };
        let text = summary(&outlook) + &table(&outlook).render(2, None);
        for part in [
            "4096×4096 · 4096×4096 f64, 16 tiles of 1024×1024",
            "about 1.5 s on 2 devices",
            "2.7 s on this node alone",
            "its link takes longest",
            "left out: its link needs 13.0 s for one tile",
            "left out: it needs 40.0 s for one tile",
            "left out: it would spare too little",
            "left out: its memory has no room for one tile",
            "left out: the job is done before it has heard of it",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}

//! `jobs`, `job`, `result`, `cancel` and `nodes`.

use std::path::Path;

use gemmesh_protocol::status::{DeviceEntry, DeviceKind, DeviceState, JobState, JobStatus};
use serde_json::{Value, json};

use super::args::{JobArgs, QueryArgs, ResultArgs};
use super::client::Client;
use super::error::CliError;
use super::output::{self, Target};
use super::table::{Align, Table};
use super::{batch, explain, locate, multiply, text, timeline};

/// Hexadecimal digits of a whole id.
const ID_DIGITS: usize = 32;
/// Products without a result that are named.
const FAILED_SHOWN: usize = 10;
/// The longest name in a table.
const NAME_MAX: usize = 24;

/// Lists the jobs of the mesh.
///
/// # Errors
/// No node, or what it answers.
pub async fn list(query: &QueryArgs) -> Result<(), CliError> {
    let client = locate::reach(query).await?;
    let jobs = client.jobs().await?;
    if query.json {
        return output::json(&to_value(&jobs));
    }
    if jobs.is_empty() {
        output::note("No jobs. Submit one: gemmesh multiply a.npy b.npy -o c.npy");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("JOB", Align::Left),
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("SHAPE", Align::Left),
        ("TYPE", Align::Left),
        ("TILES", Align::Right),
        ("TIME", Align::Right),
        ("AGE", Align::Right),
    ])
    .optional(&["TYPE", "AGE", "SHAPE", "TIME", "TILES"]);
    for job in &jobs {
        table.row(vec![
            job.job.short(),
            text::shortened(&text::clean(&job.name), NAME_MAX),
            state(job.state).to_owned(),
            shape(job),
            job.dtype.name().to_owned(),
            format!(
                "{}/{}",
                text::grouped(job.tiles_done),
                text::grouped(job.tiles_total)
            ),
            text::seconds(job.seconds),
            text::age(job.submitted),
        ]);
    }
    output::print(&table.render(0, output::columns()))
}

/// Shows one job.
///
/// # Errors
/// No node, or what it answers.
pub async fn show(args: &JobArgs) -> Result<(), CliError> {
    let given = id_start(&args.id)?;
    let client = locate::reach(&args.query)
        .await?
        .bearing(args.token.clone());
    let id = resolve(&client, given).await?;
    let job = client.job(&id).await?;
    if args.query.json {
        return output::json(&to_value(&job));
    }
    let mut lines = format!("job        {}\n", job.job);
    if !job.name.is_empty() {
        lines.push_str(&format!("name       {}\n", text::clean(&job.name)));
    }
    lines.push_str(&format!("state      {}\n", state(job.state)));
    if let Some(error) = &job.error {
        lines.push_str(&format!("error      {}\n", text::clean(error)));
    }
    for failed in job.failed.iter().flatten().take(FAILED_SHOWN) {
        let why = text::clean(&failed.error);
        lines.push_str(&format!("failed     product {}: {why}\n", failed.index));
    }
    let more = job.failed.iter().flatten().skip(FAILED_SHOWN).count();
    if more > 0 {
        lines.push_str(&format!("           … and {more} more\n"));
    }
    lines.push_str(&format!(
        "product    {} {}\n",
        shape(&job),
        job.dtype.name()
    ));
    lines.push_str(&format!(
        "tiles      {} of {} done, {} computed again\n",
        text::grouped(job.tiles_done),
        text::grouped(job.tiles_total),
        text::grouped(job.tiles_recomputed)
    ));
    lines.push_str(&format!(
        "submitted  {}, {} so far\n",
        job.submitted,
        text::seconds(job.seconds)
    ));
    if job.state.has_ended() {
        lines = lines.replace(" so far\n", " in all\n");
    }
    lines.push_str(&explain::forecast(&job));
    if let Some(sharing) = &job.sharing {
        lines.push_str(&explain::sharing(sharing));
    }
    // Without them there are ids in place of some names.
    let devices = client.nodes().await.unwrap_or_default();
    let names = timeline::Names::new(&job, &devices);
    lines.push_str(&timeline::standing(&job, &names));
    lines.push_str(&format!("moved      {}", text::bytes(job.bytes_sent)));
    if job.bytes_replicated > 0 {
        let copied = text::bytes(job.bytes_replicated);
        lines.push_str(&format!(", {copied} more for safety"));
    }
    lines.push('\n');
    if let Some([peak, limit]) = client.memory().await {
        let (peak, limit) = (text::bytes(peak), text::bytes(limit));
        lines.push_str(&format!(
            "memory     {peak} at most at the node asked, which may take {limit}\n"
        ));
    }
    if let Some(result) = &job.result {
        lines.push_str(&format!(
            "result     {result}\n           gemmesh result {} -o c.npy\n",
            job.job.short()
        ));
    }
    if job.products.is_some() {
        let id = job.job.short();
        lines.push_str(&format!("results    gemmesh result {id} -o DIRECTORY\n"));
    }
    if !job.contributions.is_empty() {
        lines.push('\n');
        lines.push_str(&contributions(&job).render(0, output::columns()));
    }
    if !job.timeline.is_empty() {
        lines.push('\n');
        lines.push_str(&timeline::story(&job.timeline));
    }
    output::print(&lines)
}

/// Fetches the result of a job, waiting for it if need be.
///
/// # Errors
/// No node, no result, or it can not be written.
pub async fn result(args: &ResultArgs) -> Result<(), CliError> {
    let path = args.output.as_deref().unwrap_or(Path::new("-"));
    // Of a batch it may be a directory or a pattern.
    if path.extension().is_some() && !path.is_dir() {
        output::format_of(path)?;
    }
    let given = id_start(&args.id)?;
    let client = locate::reach(&args.query)
        .await?
        .bearing(args.token.clone());
    let id = resolve(&client, given).await?;
    let status = client.job(&id).await?;
    if let Some(products) = status.products {
        return results(args, &client, &id, products as u32).await;
    }
    let format = output::format_of(path)?;
    let target = Target::check(path)?;
    if !status.state.has_ended() {
        output::note(&format!("waiting for job {}", status.job.short()));
        multiply::check_outcome(&multiply::end(&client, &id).await?)?;
    } else {
        multiply::check_outcome(&status)?;
    }
    if args.query.json && target.is_stdout() {
        return output::json(&client.result_json(&id).await?);
    }
    let bytes = target.write(&client, &id, format, None).await?;
    if args.query.json {
        return output::json(&json!({
            "job": id,
            "output": {"file": path.display().to_string(), "format": format.name(), "bytes": bytes},
        }));
    }
    if !target.is_stdout() {
        output::note(&format!(
            "wrote {} ({})",
            path.display(),
            text::bytes(bytes)
        ));
    }
    Ok(())
}

/// Fetches the results of a batch as they come, in order.
async fn results(
    args: &ResultArgs,
    client: &Client,
    id: &str,
    products: u32,
) -> Result<(), CliError> {
    let places = batch::Places::of(args.output.as_deref(), products as usize, |_| None)?;
    let delivered = batch::deliver(client, id, products, &places).await?;
    if args.query.json {
        output::json(&json!({"job": id, "output": delivered.written}))?;
    }
    batch::check(&delivered.failed, |index| format!("product {index}"))
}

/// Cancels a job.
///
/// # Errors
/// No node, or what it answers.
pub async fn cancel(args: &JobArgs) -> Result<(), CliError> {
    let given = id_start(&args.id)?;
    let client = locate::reach(&args.query)
        .await?
        .bearing(args.token.clone());
    let id = resolve(&client, given).await?;
    client.cancel(&id).await?;
    let job = client.job(&id).await?;
    if args.query.json {
        return output::json(&to_value(&job));
    }
    output::print(&match job.state {
        JobState::Cancelled => format!("job {} is cancelled\n", job.job.short()),
        state_now => format!(
            "job {} had ended already: {}\n",
            job.job.short(),
            state(state_now)
        ),
    })
}

/// Lists the devices of the mesh.
///
/// # Errors
/// No node, or what it answers.
pub async fn nodes(query: &QueryArgs) -> Result<(), CliError> {
    let client = locate::reach(query).await?;
    let mut devices = client.nodes().await?;
    if query.json {
        return output::json(&to_value(&devices));
    }
    devices.sort_by(|x, y| {
        (x.state == DeviceState::Lost, &x.name).cmp(&(y.state == DeviceState::Lost, &y.name))
    });
    output::print(&device_table(&devices).render(0, output::columns()))
}

fn device_table(devices: &[DeviceEntry]) -> Table {
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("NAME", Align::Left),
        ("KIND", Align::Left),
        ("STATE", Align::Left),
        ("THREADS", Align::Right),
        ("MFLOPS", Align::Right),
        ("ADDRESS", Align::Left),
        ("SEEN FOR", Align::Right),
    ])
    .optional(&["DEVICE", "SEEN FOR", "KIND", "THREADS", "ADDRESS"]);
    for device in devices {
        table.row(vec![
            device.device.short(),
            text::shortened(&text::clean(&device.name), NAME_MAX),
            kind(device.kind).to_owned(),
            match device.state {
                DeviceState::Ready => "ready",
                DeviceState::Busy => "busy",
                DeviceState::Paused => "paused",
                DeviceState::Lost => "lost",
            }
            .to_owned(),
            device.slots.to_string(),
            text::mflops(device.mflops),
            text::clean(&device.address),
            text::age(device.since),
        ]);
    }
    table
}

/// Who computed what.
pub fn contributions(job: &JobStatus) -> Table {
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("KIND", Align::Left),
        ("THREADS", Align::Right),
        ("TILES", Align::Right),
        ("ROWS", Align::Right),
        ("SHARE", Align::Right),
        ("MS", Align::Right),
        ("MFLOPS", Align::Right),
    ])
    .optional(&["THREADS", "KIND", "ROWS"]);
    let total: u64 = job.contributions.iter().map(|part| part.operations).sum();
    for part in &job.contributions {
        let share = if total == 0 {
            0.0
        } else {
            100.0 * part.operations as f64 / total as f64
        };
        let name = text::shortened(&text::clean(&part.name), NAME_MAX);
        table.row(vec![
            format!("{name} ({})", part.device.short()),
            kind(part.kind).to_owned(),
            part.slots.to_string(),
            text::grouped(part.tiles),
            text::grouped(part.rows),
            format!("{share:.0} %"),
            format!("{:.1}", part.compute_ms),
            text::mflops(part.mflops),
        ]);
    }
    table
}

/// `2×3 · 3×2`, or `5 products`.
pub fn shape(job: &JobStatus) -> String {
    match job.products {
        Some(products) => text::count(products, "product"),
        None => format!("{}×{} · {}×{}", job.rows, job.inner, job.inner, job.cols),
    }
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Native => "native",
        DeviceKind::Browser => "browser",
    }
}

/// What may be the beginning of an id.
fn id_start(given: &str) -> Result<String, CliError> {
    let given = given.trim().to_ascii_lowercase();
    let digits = given.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && (1..=ID_DIGITS).contains(&given.len()) {
        return Ok(given);
    }
    Err(CliError::usage(
        format!("`{given}` is not the id of a job: ids have up to {ID_DIGITS} hexadecimal digits"),
        "`gemmesh jobs` lists the jobs",
    ))
}

/// The job whose id starts with `given`.
async fn resolve(client: &Client, given: String) -> Result<String, CliError> {
    if given.len() == ID_DIGITS {
        return Ok(given);
    }
    let ids = client
        .jobs()
        .await?
        .into_iter()
        .map(|job| job.job.to_string());
    let found = ids.filter(|id| id.starts_with(&given)).collect();
    unique(found, &given, client.url())
}

fn unique(mut found: Vec<String>, given: &str, node: &str) -> Result<String, CliError> {
    match (found.pop(), found.len()) {
        (None, _) => Err(CliError::usage(
            format!("no job at {node} has an id that starts with {given}"),
            "`gemmesh jobs` lists the jobs; results live 2 hours unless the node was told otherwise",
        )),
        (Some(id), 0) => Ok(id),
        (Some(_), more) => Err(CliError::usage(
            format!("{} jobs have ids that start with {given}", more + 1),
            "give more digits; `gemmesh jobs` lists the jobs",
        )),
    }
}

/// What the API would say.
pub fn to_value<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("statuses have string keys only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_digits_of_an_id_are_enough_when_they_are_unique() {
        let ids = |list: &[&str]| list.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        assert_eq!(unique(ids(&["3f2a"]), "3f", "n").unwrap(), "3f2a");
        let none = unique(ids(&[]), "3f", "http://n").unwrap_err();
        assert!(
            none.message.contains("3f") && none.message.contains("http://n"),
            "{}",
            none.message
        );
        let many = unique(ids(&["3f2a", "3f2b"]), "3f", "n").unwrap_err();
        assert!(many.message.contains("2 jobs"), "{}", many.message);
        for text in ["", "xyz", "../a", &"0".repeat(ID_DIGITS + 1)] {
            assert!(id_start(text).is_err(), "{text}");
        }
        assert_eq!(id_start(" 3F ").unwrap(), "3f");
        assert!(id_start(&"a".repeat(ID_DIGITS)).is_ok());
    }

    #[test]
    fn whole_ids_have_the_digits_that_are_expected() {
        let id = gemmesh_protocol::id::JobId([0xab; ID_DIGITS / 2]);
        assert_eq!(id.to_string().len(), ID_DIGITS);
    }

    #[test]
    fn names_from_the_mesh_are_harmless() {
        let entry = json!([{
            "device": "ab".repeat(32), "name": "\u{1b}[2Jevil\u{202e}", "kind": "browser",
            "address": "10.0.0.1:8080\u{7}", "slots": 4, "mflops": 1234.0, "state": "lost",
            "since": "2026-01-01T00:00:00.000Z",
        }]);
        let devices: Vec<DeviceEntry> = serde_json::from_value(entry).unwrap();
        let text = device_table(&devices).render(0, None);
        assert!(
            text.contains("[2Jevil") && text.contains("1,234") && text.contains("lost"),
            "{text}"
        );
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    }
}

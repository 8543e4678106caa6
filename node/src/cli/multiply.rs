//! `gemmesh multiply A B`: from two files to the product, with whatever node there is.

use std::fs;
use std::future::Future;
use std::io::IsTerminal as _;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use gemmesh_protocol::status::{JobState, JobStatus};
use serde_json::{Value, json};

use super::args::{LogArgs, LogFormat, ModeArg, MultiplyArgs};
use crate::files::Format;

use super::client::{Client, Guarding, Matrix, Source, Submission};
use super::error::{CliError, Exit};
use super::locate::{self, Embedded};
use super::output::{self, Target};
use super::progress::{self, Progress};
use super::{batch, explain, jobs, logging, signals, text};

/// More elements than this do not help anybody on a terminal.
const TERMINAL_ELEMENTS_MAX: u64 = 2_500;
/// `--json` without `-o` carries a result of at most this many elements.
const JSON_ELEMENTS_MAX: u64 = 10_000;
/// What a job needs of a node is said before it starts, when its product has so many elements.
const LARGE_ELEMENTS: u64 = 8 << 20;
/// How often the bar is redrawn.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// How often a node that stopped answering is asked again before the command gives up.
const CONTACT_TRIES: u32 = 5;
/// The time between two such tries.
const CONTACT_PAUSE: Duration = Duration::from_millis(500);

/// Resolves when the person wants to stop.
type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Multiplies.
///
/// # Errors
/// Bad input, no node, or a job that failed.
pub async fn run(args: MultiplyArgs) -> Result<(), CliError> {
    let log = LogArgs {
        log_level: std::env::var("GEMMESH_LOG_LEVEL").ok(),
        log_format: LogFormat::Text,
    };
    logging::start(&log, "error")?;
    let mut stop: Stop = Box::pin(
        signals::stop_requested()
            .map_err(|error| CliError::failed(format!("Ctrl-C can not be caught: {error}"), ""))?,
    );
    let guarding = guarding(&args)?;
    let input = Input::check(&args)?;
    let (client, embedded) = match reach(&args).await? {
        Some(client) => (client, None),
        None => {
            let (embedded, client) = Embedded::start().await?;
            (client, Some(embedded))
        }
    };
    let progress = Progress::new();
    let outcome = multiply(
        &args,
        guarding,
        input,
        &client,
        embedded.is_some(),
        &progress,
        &mut stop,
    )
    .await;
    progress.clear();
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    outcome
}

/// From whom the matrices are kept.
fn guarding(args: &MultiplyArgs) -> Result<Guarding, CliError> {
    let mode = args.mode.name();
    for (flag, given) in [
        ("--colluders", args.colluders),
        ("--stragglers", args.stragglers),
    ] {
        if given.is_some() && args.mode != ModeArg::Private {
            return Err(CliError::usage(
                format!("{flag} is only for --mode private"),
                format!("leave {flag} out, or say --mode private"),
            ));
        }
    }
    if args.batch.is_some() && args.mode != ModeArg::Plain {
        return Err(CliError::usage(
            format!("--batch is computed in mode plain only, not in mode {mode}"),
            "submit its products one by one in this mode",
        ));
    }
    Ok(Guarding {
        mode,
        colluders: args.colluders,
        stragglers: args.stragglers,
    })
}

/// The node that was asked for or this device's, known to answer; `None`: start one.
async fn reach(args: &MultiplyArgs) -> Result<Option<Client>, CliError> {
    if let Some(url) = &args.query.node {
        let client = Client::new(url);
        client.nodes().await?;
        return Ok(Some(client));
    }
    let found = locate::local().await?;
    if found.is_none() && args.detach {
        return Err(CliError::unreachable(
            "--detach needs a node that stays, and none runs on this device",
            "start one with `gemmesh serve`, or say which with --node URL",
        ));
    }
    Ok(found)
}

/// The files, found good as far as that can be seen without a node.
enum Input {
    One(One),
    Batch(Vec<batch::Line>, batch::Places),
}

/// Two factors.
struct One {
    a: Factor,
    b: Factor,
    output: Option<(Target, Format)>,
}

/// A file with a factor.
pub struct Factor {
    name: String,
    format: Format,
    /// `None` is standard input.
    file: Option<(fs::File, u64)>,
    /// The same file again needs no second transfer.
    canonical: Option<std::path::PathBuf>,
}

impl Input {
    fn check(args: &MultiplyArgs) -> Result<Self, CliError> {
        if let Some(list) = &args.batch {
            let lines = batch::read(list)?;
            let own = |index: usize| lines[index].c.clone();
            let places = match args.detach {
                true => batch::Places::Stdout,
                false => batch::Places::of(args.output.as_deref(), lines.len(), own)?,
            };
            return Ok(Self::Batch(lines, places));
        }
        let (Some(a), Some(b)) = (&args.a, &args.b) else {
            unreachable!("clap asks for both without --batch")
        };
        if a == Path::new("-") && b == Path::new("-") {
            return Err(CliError::usage(
                "A and B can not both come from standard input",
                "give one of them as a file",
            ));
        }
        let output = match &args.output {
            Some(path) => Some((Target::check(path)?, output::format_of(path)?)),
            None => None,
        };
        Ok(Self::One(One {
            a: Factor::open(a)?,
            b: Factor::open(b)?,
            output,
        }))
    }
}

impl Factor {
    /// Opens it.
    ///
    /// # Errors
    /// It can not be read, or its form is not known.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let name = path.display().to_string();
        let format = output::format_of(path)?;
        if path == Path::new("-") {
            let name = "standard input".to_owned();
            return Ok(Self {
                name,
                format,
                file: None,
                canonical: None,
            });
        }
        let cannot = |why: &str| {
            CliError::usage(
                format!("{name} can not be read: {why}"),
                "check the name and the permissions",
            )
        };
        let file = fs::File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => cannot("there is no such file"),
            std::io::ErrorKind::PermissionDenied => cannot("permission denied"),
            _ => cannot(&error.to_string()),
        })?;
        let data = file
            .metadata()
            .map_err(|error| cannot(&error.to_string()))?;
        if data.is_dir() {
            return Err(cannot("it is a directory"));
        }
        let canonical = fs::canonicalize(path).ok();
        Ok(Self {
            name,
            format,
            file: Some((file, data.len())),
            canonical,
        })
    }

    /// Sends it to the node.
    ///
    /// # Errors
    /// It is no matrix, or the node was not reached.
    pub async fn send(
        self,
        client: &Client,
        dtype: Option<&'static str>,
        private: bool,
    ) -> Result<Matrix, CliError> {
        let source = match self.file {
            Some((file, bytes)) => Source::file(tokio::fs::File::from_std(file), bytes),
            None => Source::stdin(),
        };
        // Text is f64 here, however many digits it has, unless --dtype says otherwise.
        let dtype = dtype.or((self.format == Format::Csv).then_some("f64"));
        let sent = client.put_matrix(source, self.format, dtype, private).await;
        sent.map_err(|error| {
            if error.exit == Exit::Unreachable {
                error
            } else {
                error.about(&self.name)
            }
        })
    }
}

#[allow(clippy::too_many_arguments, reason = "one call")]
async fn multiply(
    args: &MultiplyArgs,
    guarding: Guarding,
    input: Input,
    client: &Client,
    embedded: bool,
    progress: &Progress,
    stop: &mut Stop,
) -> Result<(), CliError> {
    let One { a, b, output } = match input {
        Input::One(one) => one,
        Input::Batch(lines, places) => {
            return multiply_list(args, lines, &places, client, embedded, progress, stop).await;
        }
    };
    let names = (a.name.clone(), b.name.clone());
    let dtype = args.dtype.map(super::args::DtypeArg::name);
    let preparing = async {
        let same = a.canonical.is_some() && a.canonical == b.canonical;
        progress.step(&format!("sending {}", a.name));
        let private = guarding.is_private();
        let a = a.send(client, dtype, private).await?;
        // Both have one token.
        let client = client.bearing(a.token.clone());
        let b = if same {
            a.clone()
        } else {
            progress.step(&format!("sending {}", b.name));
            b.send(&client, dtype, private).await?
        };
        check_shapes(&names, &a, &b)?;
        check_stacks(&names, (&a, &b), output.as_ref(), args)?;
        if output.is_none() && !args.detach && !args.query.json && !args.explain {
            check_terminal(a.rows, b.cols)?;
        }
        let default_name = format!("{} · {}", base(&names.0), base(&names.1));
        let name = args
            .name
            .clone()
            .unwrap_or_else(|| text::shortened(&text::clean(&default_name), 64));
        Ok::<_, CliError>((a, b, name))
    };
    let (a, b, name) = tokio::select! {
        prepared = preparing => prepared?,
        () = &mut *stop => return Err(CliError::failed("stopped; no job was submitted", "")),
    };
    let client = &client.bearing(a.token.clone());
    if let (Some(products), _) = (a.stack, b.stack) {
        let object = json!({"a": a.id, "b": b.id, "products": products});
        let places = match (output, &args.output) {
            (Some((target, _)), Some(path)) => batch::Places::Whole(target, path.clone()),
            _ => batch::Places::Stdout,
        };
        let named = |index: u32| format!("product {index}");
        let batch = Batch {
            object,
            name,
            count: products as u32,
            places: &places,
        };
        return submit_batch(args, batch, named, client, embedded, progress, stop).await;
    }
    // Not given up half way: a job that the node has taken could not be cancelled without its id.
    let submission = Submission {
        a: &a.id,
        b: &b.id,
        dtype,
        mode: &guarding,
        reproducible: args.reproducible,
        name: &name,
    };
    if args.explain {
        let explained = client.explain(&submission).await?;
        progress.clear();
        return explain::print(&explained, args.query.json);
    }
    if a.rows.saturating_mul(b.cols) >= LARGE_ELEMENTS {
        let needs = client.explain(&submission).await?.needs;
        progress.clear();
        output::note(&format!(
            "the job needs {} of disk at that node, and {} of memory for each tile",
            text::bytes(needs.disk_bytes),
            text::bytes(needs.memory_bytes)
        ));
    }
    let submitted = client.submit(&submission).await?;
    let client = &client.bearing(Some(submitted.token.clone()));
    if args.detach {
        progress.clear();
        return detached(args, client, &submitted.job, &submitted.token);
    }

    let status = follow(args, client, &submitted.job, progress, stop).await?;
    check_outcome(&status)?;
    let place = if embedded { None } else { Some(client.url()) };
    let written = deliver(args, client, &status, output, progress).await?;
    if args.query.json {
        let mut object = jobs::to_value(&status);
        object["node"] = place.into();
        object["output"] = written;
        return output::json(&object);
    }
    report(&status);
    Ok(())
}

/// Multiplies what a list says.
async fn multiply_list(
    args: &MultiplyArgs,
    lines: Vec<batch::Line>,
    places: &batch::Places,
    client: &Client,
    embedded: bool,
    progress: &Progress,
    stop: &mut Stop,
) -> Result<(), CliError> {
    let dtype = args.dtype.map(super::args::DtypeArg::name);
    progress.step("sending the files of the list");
    let sent = tokio::select! {
        sent = batch::send(&lines, client, dtype) => sent?,
        () = &mut *stop => return Err(CliError::failed("stopped; no job was submitted", "")),
    };
    let products: Vec<Value> = sent.iter().map(|[a, b]| json!({"a": a, "b": b})).collect();
    let list = args
        .batch
        .as_deref()
        .unwrap_or(Path::new("-"))
        .display()
        .to_string();
    let name = args.name.clone();
    let batch = Batch {
        object: products.into(),
        name: name.unwrap_or_else(|| text::shortened(&text::clean(&base(&list)), 64)),
        count: lines.len() as u32,
        places,
    };
    let named = |index: u32| {
        let line = &lines[index as usize];
        let (a, b) = (line.a.display(), line.b.display());
        format!("line {} ({a} {b})", line.number)
    };
    submit_batch(args, batch, named, client, embedded, progress, stop).await
}

/// A batch that can be submitted.
struct Batch<'p> {
    /// As the API takes it.
    object: Value,
    name: String,
    count: u32,
    places: &'p batch::Places,
}

async fn submit_batch(
    args: &MultiplyArgs,
    batch: Batch<'_>,
    named: impl Fn(u32) -> String,
    client: &Client,
    embedded: bool,
    progress: &Progress,
    stop: &mut Stop,
) -> Result<(), CliError> {
    let dtype = args.dtype.map(super::args::DtypeArg::name);
    let submitted = client
        .submit_batch(batch.object, dtype, args.reproducible, &batch.name)
        .await?;
    let job = &submitted.job;
    if args.detach {
        progress.clear();
        return detached(args, client, job, &submitted.token);
    }
    let delivering = async {
        // A program wants one object, and the results from their places.
        let places = match batch.places {
            batch::Places::Stdout if args.query.json => None,
            places => Some(places),
        };
        let delivered = match places {
            Some(places) => batch::deliver(client, job, batch.count, places).await?,
            None => batch::Delivered::default(),
        };
        Ok((end(client, job).await?, delivered))
    };
    let (status, mut delivered) =
        until_stopped(args, client, job, progress, stop, delivering).await?;
    progress.clear();
    check_outcome(&status)?;
    if args.query.json {
        let mut object = jobs::to_value(&status);
        let place = if embedded { None } else { Some(client.url()) };
        object["node"] = place.into();
        object["output"] = std::mem::take(&mut delivered.written).into();
        output::json(&object)?;
    } else {
        report(&status);
    }
    batch::check(&batch::failures(&status), named)
}

/// Stacks are multiplied with stacks of as many.
fn check_stacks(
    names: &(String, String),
    (a, b): (&Matrix, &Matrix),
    output: Option<&(Target, Format)>,
    args: &MultiplyArgs,
) -> Result<(), CliError> {
    let says = |stack: Option<u64>| {
        stack.map_or_else(|| "one matrix".to_owned(), |n| format!("a stack of {n}"))
    };
    if a.stack != b.stack {
        return Err(CliError::usage(
            format!(
                "{} is {} and {} is {}",
                names.0,
                says(a.stack),
                names.1,
                says(b.stack)
            ),
            "give two stacks of as many matrices, or two matrices",
        ));
    }
    if a.stack.is_some() && args.explain {
        return Err(CliError::usage(
            format!("{} and {} are stacks of matrices", names.0, names.1),
            "--explain tells the plan of one product: give two matrices",
        ));
    }
    let whole =
        output.is_some_and(|(target, format)| *format != Format::Npy && !target.is_stdout());
    if a.stack.is_some() && whole {
        return Err(CliError::usage(
            format!(
                "the product of {} and {} has three dimensions",
                names.0, names.1
            ),
            "write it to an .npy file: -o c.npy",
        ));
    }
    if a.stack.is_some() && output.is_none() && !args.detach && !args.query.json {
        check_terminal(a.rows, b.cols)?;
    }
    Ok(())
}

fn check_shapes(names: &(String, String), a: &Matrix, b: &Matrix) -> Result<(), CliError> {
    let each = |matrix: &Matrix| matrix.rows / matrix.stack.unwrap_or(1).max(1);
    let (a_rows, b_rows) = (each(a), each(b));
    if a.cols == b_rows {
        return Ok(());
    }
    Err(CliError::usage(
        format!(
            "{} is {}×{} and {} is {}×{}: a product needs as many columns in A ({}) as rows in B ({})",
            names.0, a_rows, a.cols, names.1, b_rows, b.cols, a.cols, b_rows
        ),
        if a_rows == b.cols {
            "exchange the two files"
        } else {
            "check which files belong together"
        },
    ))
}

fn check_terminal(rows: u64, cols: u64) -> Result<(), CliError> {
    let elements = u128::from(rows) * u128::from(cols);
    if elements <= TERMINAL_ELEMENTS_MAX.into() || !std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(CliError::usage(
        format!("C would be {rows}×{cols}: too large to print on a terminal"),
        "write it to a file with -o c.npy, or print it anyway with -o -",
    ))
}

fn base(name: &str) -> String {
    Path::new(name).file_name().map_or_else(
        || name.to_owned(),
        |base| base.to_string_lossy().into_owned(),
    )
}

fn detached(args: &MultiplyArgs, client: &Client, job: &str, token: &str) -> Result<(), CliError> {
    if args.query.json {
        return output::json(&json!({"job": job, "token": token, "node": client.url()}));
    }
    output::print(&format!("{}\n", text::clean(job)))?;
    let token = match args.mode {
        ModeArg::Plain => String::new(),
        _ => format!(" --token {}", text::clean(token)),
    };
    output::note(&format!(
        "submitted to {}; fetch it with: gemmesh result {} -o c.npy --node {}{token}",
        client.url(),
        text::clean(job),
        client.url()
    ));
    Ok(())
}

/// Waits for the end of a job. Ctrl-C and `--timeout` cancel it.
async fn follow(
    args: &MultiplyArgs,
    client: &Client,
    job: &str,
    progress: &Progress,
    stop: &mut Stop,
) -> Result<JobStatus, CliError> {
    until_stopped(args, client, job, progress, stop, end(client, job)).await
}

/// Does `work` for a job that runs, with a bar; cancels the job when that takes too long or the person
/// wants to stop.
async fn until_stopped<T>(
    args: &MultiplyArgs,
    client: &Client,
    job: &str,
    progress: &Progress,
    stop: &mut Stop,
    work: impl Future<Output = Result<T, CliError>>,
) -> Result<T, CliError> {
    let limit = async {
        match args.timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let bar = async {
        let mut ticks = tokio::time::interval(BAR_INTERVAL);
        loop {
            ticks.tick().await;
            if !progress.is_shown() {
                std::future::pending::<()>().await;
            }
            // The question for the end reports what is wrong with the node.
            if let Ok(status) = client.job(job).await {
                progress.job(&status);
            }
        }
    };
    let why = tokio::select! {
        done = work => return done,
        () = bar => unreachable!("the bar is drawn until something else ends"),
        () = limit => format!("not done after {}", text::seconds(args.timeout.unwrap_or_default().as_secs_f64())),
        () = stop => "stopped".to_owned(),
    };
    progress.clear();
    match client.cancel(job).await {
        Ok(()) => Err(CliError::failed(
            format!("{why}; job {} is cancelled", short(job)),
            "",
        )),
        Err(error) => Err(CliError::failed(
            format!(
                "{why}, but job {} could not be cancelled: {}",
                short(job),
                error.message
            ),
            format!("gemmesh cancel {} --node {}", short(job), client.url()),
        )),
    }
}

/// The status of a job once it has ended, asked in one question that the node leaves open.
///
/// # Errors
/// The node's, or that it was lost on the way.
pub async fn end(client: &Client, job: &str) -> Result<JobStatus, CliError> {
    let mut failures = 0;
    loop {
        let asked = Instant::now();
        match client.wait(job).await {
            Ok(status) if status.state.has_ended() => return Ok(status),
            Ok(_) => {
                failures = 0;
                // A node answers early when it has lost the one that runs the job.
                if asked.elapsed() < CONTACT_PAUSE {
                    tokio::time::sleep(CONTACT_PAUSE).await;
                }
            }
            Err(error) if error.exit == Exit::Unreachable => {
                failures += 1;
                if failures == CONTACT_TRIES {
                    return Err(CliError::unreachable(
                        format!(
                            "lost contact while job {} was running: {}",
                            short(job),
                            error.message
                        ),
                        format!(
                            "when the node is back: gemmesh job {} --node {}",
                            short(job),
                            client.url()
                        ),
                    ));
                }
                tokio::time::sleep(CONTACT_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a job that has ended has a result.
///
/// # Errors
/// Why it has none.
pub fn check_outcome(status: &JobStatus) -> Result<(), CliError> {
    let job = status.job.short();
    match status.state {
        JobState::Done => Ok(()),
        JobState::Cancelled => Err(CliError::failed(
            format!("job {job} was cancelled by somebody"),
            "",
        )),
        _ => {
            let reason = status.error.as_deref().unwrap_or("the node gave no reason");
            Err(CliError::failed(format!("job {job} failed: {reason}"), ""))
        }
    }
}

/// Puts the result where it belongs; what `--json` says about that.
async fn deliver(
    args: &MultiplyArgs,
    client: &Client,
    status: &JobStatus,
    output: Option<(Target, Format)>,
    progress: &Progress,
) -> Result<Value, CliError> {
    let job = status.job.to_string();
    let elements = u128::from(status.rows) * u128::from(status.cols);
    match output {
        None if args.query.json && elements > JSON_ELEMENTS_MAX.into() => Ok(Value::Null),
        None if args.query.json => client.result_json(&job).await,
        // Standard output already carries the object.
        Some((Target::Stdout, _)) if args.query.json => client.result_json(&job).await,
        None => {
            progress.clear();
            Target::Stdout
                .write(client, &job, Format::Csv, None)
                .await
                .map(Value::from)
        }
        Some((target, format)) => {
            if target.is_stdout() {
                progress.clear();
            } else {
                progress.step("writing the result");
            }
            let bytes = target.write(client, &job, format, None).await?;
            progress.clear();
            let file = args
                .output
                .as_deref()
                .unwrap_or(Path::new("-"))
                .display()
                .to_string();
            if !args.query.json && !target.is_stdout() {
                output::note(&format!("wrote {file} ({})", text::bytes(bytes)));
            }
            Ok(json!({"file": file, "format": format.name(), "bytes": bytes}))
        }
    }
}

/// Who computed what.
fn report(status: &JobStatus) {
    let mut line = format!(
        "{} {} in {}",
        jobs::shape(status),
        status.dtype.name(),
        text::seconds(status.seconds)
    );
    let speed = progress::speed(status);
    // Of a small product the time is spent elsewhere.
    if speed >= 1.0 {
        line.push_str(&format!(", {}", text::gflops(speed)));
    }
    line.push_str(&format!(
        ", {}",
        text::count(progress::helpers(status), "device")
    ));
    output::note(&line);
    if let Some(sharing) = &status.sharing {
        explain::sharing(sharing).lines().for_each(output::note);
    }
    output::note(
        jobs::contributions(status)
            .render(2, output::note_columns())
            .trim_end(),
    );
}

fn short(job: &str) -> String {
    text::clean(&job.chars().take(8).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_match_are_named_with_their_files() {
        let matrix = |rows, cols| Matrix {
            id: String::new(),
            rows,
            cols,
            stack: None,
            token: None,
        };
        let names = ("a.csv".to_owned(), "b.npy".to_owned());
        assert!(check_shapes(&names, &matrix(2, 3), &matrix(3, 2)).is_ok());
        let error = check_shapes(&names, &matrix(2, 3), &matrix(2, 4)).unwrap_err();
        for part in ["a.csv is 2×3", "b.npy is 2×4"] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert_eq!(error.exit, Exit::Usage);
        let turned = check_shapes(&names, &matrix(2, 3), &matrix(4, 2)).unwrap_err();
        assert!(turned.hint.contains("exchange"), "{}", turned.hint);
    }

    #[test]
    fn jobs_are_named_after_their_files() {
        assert_eq!(base("/x/a.npy"), "a.npy");
        assert_eq!(base("standard input"), "standard input");
    }
}

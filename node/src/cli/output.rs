//! Results to standard output or a file, notes to standard error.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::files::Format;

use super::client::Client;
use super::error::CliError;
use super::text;

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// Standard output can not be written.
pub fn print(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CliError::failed(
            format!("standard output can not be written: {error}"),
            "",
        )),
        _ => Ok(()),
    }
}

/// Prints JSON for programs.
///
/// # Errors
/// Standard output can not be written.
pub fn json(value: &Value) -> Result<(), CliError> {
    print(&format!("{}\n", text::json(value)))
}

/// The width of the terminal that standard output is, if it is one.
pub fn columns() -> Option<usize> {
    width(&console::Term::stdout())
}

/// The width of the terminal that standard error is, if it is one.
pub fn note_columns() -> Option<usize> {
    width(&console::Term::stderr())
}

fn width(terminal: &console::Term) -> Option<usize> {
    let size = terminal.is_term().then(|| terminal.size_checked());
    size.flatten().map(|(_, columns)| columns.into())
}

/// Tells the person something; a lost standard error is no reason to stop.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The form that a file's ending names; `-` is CSV.
///
/// # Errors
/// Names the file and the endings that are known.
pub fn format_of(path: &Path) -> Result<Format, CliError> {
    let format = if path == Path::new("-") {
        Some(Format::Csv)
    } else {
        Format::from_path(path)
    };
    format
        .filter(|format| *format != Format::Json)
        .ok_or_else(|| {
            CliError::usage(
                format!(
                    "{}: the ending says how a file is read or written, and this one is not known",
                    path.display()
                ),
                "use .npy (NumPy), .csv or .mtx (Matrix Market)",
            )
        })
}

/// Where a result goes, known to be writable before anything is computed.
#[derive(Debug)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, replaced at once when everything is there.
    File {
        /// As the person wrote it.
        name: String,
        /// Where links lead.
        path: PathBuf,
    },
}

impl Target {
    /// Looks whether `path` can be written.
    ///
    /// # Errors
    /// Names the path and what is wrong with it.
    pub fn check(path: &Path) -> Result<Self, CliError> {
        if path == Path::new("-") {
            return Ok(Target::Stdout);
        }
        let name = path.display().to_string();
        // A link is followed, so that the file behind it is replaced and not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if path.is_dir() {
            return Err(CliError::usage(
                format!("{name} is a directory"),
                "name a file in it",
            ));
        }
        let target = Target::File { name, path };
        target.draft().map(|_| target)
    }

    /// Whether this is standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Target::Stdout)
    }

    /// Fetches the result of a job, or of one product of a batch, and writes it; the number of bytes. A file is complete or
    /// left as it was.
    ///
    /// # Errors
    /// There is no result, or it can not be written.
    pub async fn write(
        &self,
        client: &Client,
        job: &str,
        format: Format,
        index: Option<u32>,
    ) -> Result<u64, CliError> {
        let Target::File { name, path } = self else {
            return client
                .result(
                    job,
                    format,
                    index,
                    &mut tokio::io::stdout(),
                    "standard output",
                )
                .await;
        };
        let draft = self.draft()?;
        let cannot = |error: io::Error| unwritable(name, &error);
        let mut file = tokio::fs::File::from_std(draft.reopen().map_err(cannot)?);
        let bytes = client
            .result(job, format, index, &mut file, name)
            .await
            .map_err(|error| error.about(name))?;
        drop(file);
        draft
            .persist(path)
            .map_err(|error| unwritable(name, &error.error))?;
        Ok(bytes)
    }

    /// A file beside the target, which takes its place in the end.
    fn draft(&self) -> Result<tempfile::NamedTempFile, CliError> {
        let Target::File { name, path } = self else {
            unreachable!("only files have drafts");
        };
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".gemmesh-").suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // What the person's umask leaves of it, as for any other file.
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder
            .tempfile_in(dir)
            .map_err(|error| unwritable(name, &error))
    }
}

fn unwritable(name: &str, error: &io::Error) -> CliError {
    // The name of the draft in the message would only puzzle.
    let why = match error.kind() {
        io::ErrorKind::NotFound => "its directory does not exist".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    };
    CliError::usage(
        format!("{name} can not be written: {why}"),
        "choose another place with -o",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_name_the_form() {
        for (path, format) in [
            ("a.npy", Format::Npy),
            ("x/B.CSV", Format::Csv),
            ("g.mtx", Format::Mtx),
            ("-", Format::Csv),
        ] {
            assert_eq!(format_of(Path::new(path)).unwrap(), format, "{path}");
        }
        for path in ["a", "a.pdf", "a.npz", "a.json", ".npy", "npy"] {
            let error = format_of(Path::new(path)).unwrap_err();
            assert!(error.message.contains(path), "{}", error.message);
        }
    }

    #[test]
    fn a_place_that_can_not_be_written_is_named_before_anything_is_computed() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no").join("c.npy");
        let error = Target::check(&missing).unwrap_err();
        assert!(
            error.message.contains("c.npy") && error.message.contains("directory"),
            "{}",
            error.message
        );
        let error = Target::check(dir.path()).unwrap_err();
        assert!(
            error.message.contains("is a directory"),
            "{}",
            error.message
        );
        assert!(Target::check(Path::new("-")).unwrap().is_stdout());
        assert!(Target::check(&dir.path().join("c.npy")).is_ok());
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            0,
            "checking leaves nothing behind"
        );
    }
}

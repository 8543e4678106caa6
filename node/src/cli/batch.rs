//! `gemmesh multiply --batch LIST`: many products as one job, and what becomes of their results.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gemmesh_protocol::status::JobStatus;
use serde_json::{Value, json};

use super::client::{Client, Matrix};
use super::error::CliError;
use super::output::{self, Target};
use super::text;
use crate::files::Format;

/// Files that are sent at a time.
const SENT_AT_ONCE: usize = 4;
/// Products without a result that are named one by one.
const FAILED_SHOWN: usize = 10;
/// What stands for the number of a product in `-o`.
const NUMBER: &str = "{}";

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// The left factor.
    pub a: PathBuf,
    /// The right factor.
    pub b: PathBuf,
    /// Where the product goes.
    pub c: Option<PathBuf>,
}

/// Reads a list: a product in each line, `A B` or `A B C`; names with blanks in double quotes; lines
/// that start with `#` are skipped. Names are relative to the list's folder.
///
/// # Errors
/// Names the line and what is wrong with it.
pub fn read(list: &Path) -> Result<Vec<Line>, CliError> {
    let name = list.display();
    let text = match list == Path::new("-") {
        true => std::io::read_to_string(std::io::stdin()),
        false => fs::read_to_string(list),
    };
    let text = text.map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::InvalidData => "it is not text".to_owned(),
            _ => error.to_string(),
        };
        CliError::usage(
            format!("{name} can not be read: {why}"),
            "write a list: in each line the files A and B of one product",
        )
    })?;
    let folder = list.parent().unwrap_or(Path::new(""));
    parse(&text, folder).map_err(|error| error.about(&name.to_string()))
}

fn parse(text: &str, folder: &Path) -> Result<Vec<Line>, CliError> {
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| {
            CliError::usage(
                format!("line {number} {what}"),
                "each line is A B or A B C: the factors, and where the product goes",
            )
        };
        let names = words(line).ok_or_else(|| wrong("has a quote that does not end"))?;
        let path = |name: &String| folder.join(name);
        match &names[..] {
            [a, b] => lines.push(Line {
                number,
                a: path(a),
                b: path(b),
                c: None,
            }),
            [a, b, c] => lines.push(Line {
                number,
                a: path(a),
                b: path(b),
                c: Some(path(c)),
            }),
            names => {
                return Err(wrong(&format!(
                    "names {}",
                    text::count(names.len() as u64, "file")
                )));
            }
        }
    }
    if lines.is_empty() {
        return Err(CliError::usage(
            "the list has no products",
            "write in each line the files A and B of one product",
        ));
    }
    Ok(lines)
}

/// Words between blanks; a word in double quotes may have blanks.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

/// Sends the files of a list, each once; the ids of each product's factors.
///
/// # Errors
/// A file can not be read or is no matrix, named.
pub async fn send(
    lines: &[Line],
    client: &Client,
    dtype: Option<&'static str>,
) -> Result<Vec<[String; 2]>, CliError> {
    let mut files: BTreeMap<&Path, usize> = BTreeMap::new();
    for line in lines {
        for path in [&line.a, &line.b] {
            files.entry(path).or_insert(line.number);
        }
    }
    // All are looked at before the first is sent.
    for (path, line) in &files {
        super::multiply::Factor::open(path)
            .map_err(|error| error.about(&format!("line {line}")))?;
    }
    let sent = stream::iter(files.keys().copied()).map(|path| async move {
        let file = super::multiply::Factor::open(path)?;
        let matrix: Matrix = file.send(client, dtype, false).await?;
        if matrix.stack.is_some() {
            return Err(CliError::usage(
                format!("{} has three dimensions", path.display()),
                "multiply two stacks of matrices by themselves: gemmesh multiply A.npy B.npy",
            ));
        }
        Ok((path, matrix.id))
    });
    let ids: BTreeMap<&Path, String> = sent.buffer_unordered(SENT_AT_ONCE).try_collect().await?;
    let id = |path: &Path| ids[path].clone();
    let pair = |line: &Line| [id(&line.a), id(&line.b)];
    Ok(lines.iter().map(pair).collect())
}

/// Where the products of a batch go.
#[derive(Debug)]
pub enum Places {
    /// All to standard output as CSV, one after the other.
    Stdout,
    /// All as one `.npy` of three dimensions.
    Whole(Target, PathBuf),
    /// Each to a file of its own.
    Each(Vec<(Target, Format, PathBuf)>),
}

impl Places {
    /// What `-o` says for `count` products, of which some name a place of their own.
    ///
    /// # Errors
    /// Names a place that can not be written.
    pub fn of(
        output: Option<&Path>,
        count: usize,
        own: impl Fn(usize) -> Option<PathBuf>,
    ) -> Result<Self, CliError> {
        let all_named = (0..count).all(|index| own(index).is_some());
        let width = count.saturating_sub(1).to_string().len();
        let named = |index: usize| format!("{index:0width$}");
        let text = output.map(|path| path.to_string_lossy().into_owned());
        let pattern = match (output, text) {
            (Some(path), _) if path == Path::new("-") => return Ok(Self::Stdout),
            (None, _) if !all_named => {
                if (0..count).any(|index| own(index).is_some()) {
                    return Err(CliError::usage(
                        "some lines of the list say where the product goes and some do not",
                        "name it in all lines, or say where the others go: -o DIRECTORY",
                    ));
                }
                return Ok(Self::Stdout);
            }
            (Some(_), Some(text)) if text.contains(NUMBER) => Some(text),
            (Some(path), Some(text)) if path.extension().is_some() && !path.is_dir() => {
                return match output::format_of(path)? {
                    Format::Npy => Ok(Self::Whole(Target::check(path)?, path.to_owned())),
                    _ => Err(CliError::usage(
                        format!("{text} is one file, and the batch has {count} products"),
                        format!("name a directory, or a file for each: -o c{NUMBER}.csv"),
                    )),
                };
            }
            (Some(path), Some(_)) => {
                fs::create_dir_all(path).map_err(|error| {
                    CliError::usage(
                        format!("{} can not be made: {error}", path.display()),
                        "choose another place with -o",
                    )
                })?;
                let file = path.join(format!("{NUMBER}.npy"));
                Some(file.to_string_lossy().into_owned())
            }
            _ => None,
        };
        let place = |index: usize| {
            let path = match (own(index), &pattern) {
                (Some(own), _) => own,
                (None, Some(pattern)) => pattern.replace(NUMBER, &named(index)).into(),
                (None, None) => unreachable!("all are named"),
            };
            Ok((Target::check(&path)?, output::format_of(&path)?, path))
        };
        (0..count)
            .map(place)
            .collect::<Result<_, _>>()
            .map(Self::Each)
    }
}

/// What became of the results.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Where each product went.
    pub written: Vec<Value>,
    /// The products without one, and why.
    pub failed: Vec<(u32, String)>,
}

/// Writes each product as soon as it is there, in order; those without a result are named.
///
/// # Errors
/// The batch was cancelled, a place can not be written, or the node was lost.
pub async fn deliver(
    client: &Client,
    job: &str,
    count: u32,
    places: &Places,
) -> Result<Delivered, CliError> {
    let mut delivered = Delivered::default();
    if let Places::Whole(target, path) = places {
        let status = super::multiply::end(client, job).await?;
        super::multiply::check_outcome(&status)?;
        delivered.failed = failures(&status);
        if delivered.failed.is_empty() {
            let bytes = target.write(client, job, Format::Npy, None).await?;
            let file = path.display().to_string();
            delivered
                .written
                .push(json!({"file": file, "format": "npy", "bytes": bytes}));
        }
        return Ok(delivered);
    }
    for index in 0..count {
        let (target, format, path) = match places {
            Places::Each(places) => {
                let (target, format, path) = &places[index as usize];
                (target, *format, path.as_path())
            }
            _ => {
                output::print(&format!("# {index}\n"))?;
                (&Target::Stdout, Format::Csv, Path::new("-"))
            }
        };
        let bytes = loop {
            let refused = match target.write(client, job, format, Some(index)).await {
                Ok(bytes) => break Some(bytes),
                Err(error) => error,
            };
            // How the batch stands says why, and whether it is worth while to wait.
            let status = client.job(job).await?;
            let failed = failures(&status);
            if let Some(why) = failed.into_iter().find(|(failed, _)| *failed == index) {
                delivered.failed.push(why);
                break None;
            }
            if status.state.has_ended() {
                super::multiply::check_outcome(&status)?;
                return Err(refused);
            }
        };
        let Some(bytes) = bytes else { continue };
        delivered.written.push(json!({
            "index": index, "file": path.display().to_string(),
            "format": format.name(), "bytes": bytes,
        }));
    }
    Ok(delivered)
}

/// The products of a batch that have no result.
pub fn failures(status: &JobStatus) -> Vec<(u32, String)> {
    let failed = status.failed.iter().flatten();
    failed
        .map(|failed| (failed.index, failed.error.clone()))
        .collect()
}

/// Names the products without a result; `named` says which they are for people.
///
/// # Errors
/// There are some.
pub fn check(failed: &[(u32, String)], named: impl Fn(u32) -> String) -> Result<(), CliError> {
    if failed.is_empty() {
        return Ok(());
    }
    for (index, why) in failed.iter().take(FAILED_SHOWN) {
        output::note(&format!("{}: {}", named(*index), text::clean(why)));
    }
    if failed.len() > FAILED_SHOWN {
        output::note(&format!("… and {} more", failed.len() - FAILED_SHOWN));
    }
    Err(CliError::failed(
        format!(
            "{} of the batch failed; the others have their results",
            text::count(failed.len() as u64, "product")
        ),
        "mend what is named above and submit those again",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_product_in_each_line() {
        let text = "# mine\n\n a.npy  b.npy\n\"a b.csv\" c.csv\t\"out put.npy\"\r\n";
        let lines = parse(text, Path::new("in")).unwrap();
        let path = |name: &str| Path::new("in").join(name);
        assert_eq!(
            lines,
            [
                Line {
                    number: 3,
                    a: path("a.npy"),
                    b: path("b.npy"),
                    c: None
                },
                Line {
                    number: 4,
                    a: path("a b.csv"),
                    b: path("c.csv"),
                    c: Some(path("out put.npy"))
                },
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_list_names_its_line() {
        for (text, named) in [
            ("a b\na\n", "line 2 names 1 file"),
            ("a b c d\n", "line 1 names 4 files"),
            ("\"a b\n", "line 1 has a quote"),
            ("# nothing\n", "no products"),
        ] {
            let error = parse(text, Path::new("")).unwrap_err();
            assert!(error.message.contains(named), "{}", error.message);
        }
    }

    #[test]
    fn products_go_where_they_are_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let none = |_| None;
        let files = |places: Places| match places {
            Places::Each(places) => places
                .into_iter()
                .map(|(_, _, path)| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let inside = dir.path().join("results");
        let places = Places::of(Some(&inside), 11, none).unwrap();
        let names = files(places);
        assert_eq!((&names[0][..], &names[10][..]), ("00.npy", "10.npy"));
        assert!(inside.is_dir());
        let pattern = dir.path().join("c{}.csv");
        assert_eq!(
            files(Places::of(Some(&pattern), 2, none).unwrap()),
            ["c0.csv", "c1.csv"]
        );
        let own = |index: usize| Some(dir.path().join(format!("own{index}.mtx")));
        assert_eq!(
            files(Places::of(None, 2, own).unwrap()),
            ["own0.mtx", "own1.mtx"]
        );
        assert!(matches!(Places::of(None, 2, none), Ok(Places::Stdout)));
        let one = dir.path().join("c.npy");
        assert!(matches!(
            Places::of(Some(&one), 2, none),
            Ok(Places::Whole(..))
        ));
        let error = Places::of(Some(&dir.path().join("c.csv")), 2, none).unwrap_err();
        assert!(error.message.contains("2 products"), "{}", error.message);
        let half = |index: usize| (index == 0).then(|| dir.path().join("x.npy"));
        assert!(Places::of(None, 2, half).is_err());
    }
}

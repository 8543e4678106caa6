//! Lists the files of the page, so that the program can carry them.
//!
//! The page's WebAssembly is built before the node and lies in `www/wasm`; without it the node
//! still builds, and says at run time what is missing.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Endings of what the page is made of; anything else in the directory is not served.
const ENDINGS: [&str; 10] = [
    "html",
    "css",
    "js",
    "wasm",
    "svg",
    "png",
    "ico",
    "webmanifest",
    "woff2",
    "txt",
];

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let www = manifest
        .parent()
        .expect("the node is a member of a workspace")
        .join("www");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", www.display());
    let mut files = Vec::new();
    list(&www, "", &mut files);
    files.sort();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    let mut code = String::from("&[\n");
    for (number, (name, mut path)) in files.into_iter().enumerate() {
        // Comments are for who reads the sources: they would be a fifth of what a phone loads of them.
        if Path::new(&name).extension().is_some_and(|e| e == "js") {
            let text = fs::read_to_string(&path).expect("a script is text");
            path = out.join(format!("{number}.js"));
            fs::write(&path, without_comments(&text)).expect("OUT_DIR is writable");
        }
        writeln!(code, "    ({name:?}, include_bytes!({path:?})),").expect("a string grows");
    }
    code.push_str("]\n");
    fs::write(out.join("assets.rs"), code).expect("OUT_DIR is writable");
}

/// A script without the comments that have lines of their own. Lines keep their numbers, for messages of browsers.
fn without_comments(script: &str) -> String {
    let (mut kept, mut in_comment, mut in_template) = (String::new(), false, false);
    for line in script.lines() {
        let start = line.trim_start();
        let begins = !in_template && start.starts_with("/*");
        let whole = !in_template && start.starts_with("//");
        if in_comment || begins {
            in_comment = !start.contains("*/");
            let rest = start.split_once("*/").map_or("", |(_, rest)| rest.trim());
            assert!(rest.is_empty(), "code behind a comment: {line}");
        } else if !whole {
            in_template ^= line.matches('`').count() % 2 == 1;
            kept.push_str(line);
        }
        kept.push('\n');
    }
    assert!(
        !in_comment && !in_template,
        "a comment or a template without an end"
    );
    kept
}

fn list(directory: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        if path.is_dir() {
            list(&path, &format!("{prefix}{name}/"), files);
        } else if name
            .rsplit_once('.')
            .is_some_and(|(_, ending)| ENDINGS.contains(&ending))
        {
            files.push((format!("{prefix}{name}"), path));
        }
    }
}
